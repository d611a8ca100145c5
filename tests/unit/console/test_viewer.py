"""How numbers, times and spans are written, and which language and zone a person gets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.builders import new_duration, new_local_time
from server.console import charts
from server.console.viewer import Viewer, form_civil, form_span, span, viewer_of


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.0042, "4.2ms"), (1.5, "1.5s"), (60, "1m"), (125, "2m 5s"), (7500, "2h 5m"), (90061, "1d 1h")],
)
def test_a_span_has_two_units_at_most(seconds: float, written: str) -> None:
    assert span(timedelta(seconds=seconds)) == written


def test_all_but_one_is_not_everything() -> None:
    assert Viewer().percent(99_999, 100_000) == "99.9%"
    assert Viewer().percent(100_000, 100_000) == "100%"
    assert Viewer().percent(0, 0) == "0%"


def test_numbers_and_times_are_those_of_the_language_and_zone() -> None:
    moment = Timestamp()
    moment.FromDatetime(datetime(2020, 1, 31, 22, 30, tzinfo=UTC))
    assert Viewer("en", "Europe/Riga").moment(moment) == "Feb 1, 2020, 00:30:00"
    assert Viewer("ru", "UTC").moment(moment, False).startswith("31 янв")
    assert Viewer("ru").number(1234567) == "1\u00a0234\u00a0567"
    assert Viewer().moment(Timestamp()) == ""


def test_a_form_s_time_is_read_in_the_zone_in_which_it_was_written() -> None:
    viewer = Viewer("en", "Europe/Riga")
    moment = Timestamp()
    moment.FromDatetime(viewer.parse_time("2030-06-01T09:00"))
    assert moment.ToDatetime() == datetime(2030, 6, 1, 6, 0)
    assert viewer.form_time(moment) == "2030-06-01T09:00"


@pytest.mark.parametrize("text", ["0s", "1s", "90s", "1h30m", "2d", "366d", "1d1h1m1s"])
def test_a_form_s_span_is_read_as_it_was_written(text: str) -> None:
    """Fails for a span that loses what is less than its largest units."""
    assert new_duration(form_span(new_duration(text))) == new_duration(text)


def test_a_time_on_every_clock_is_of_no_zone() -> None:
    local = new_local_time("2030-06-01T09:00")
    assert form_civil(local) == "2030-06-01T09:00"
    assert Viewer("en", "Asia/Tokyo").civil(local) == "Jun 1, 2030, 09:00"


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("ru-RU,ru;q=0.9,en;q=0.8", "ru"), ("de,en;q=0.5,ru;q=0.4", "en"), ("", "en"), ("ru;q=x,*", "en")],
)
def test_the_browser_s_best_known_language_is_taken(accepted: str, language: str) -> None:
    assert viewer_of({}, accepted).language == language
    assert viewer_of({"language": "ru", "zone": "Europe%2FRiga"}, accepted) == Viewer("ru", "Europe/Riga")
    assert viewer_of({"language": "xx", "zone": "../../etc/passwd", "theme": "x"}, "") == Viewer()


def test_a_chart_names_what_people_wrote_as_text() -> None:
    column = charts.Column('"><script>', [("delivered", 5.0)])
    drawn = charts.columns([column], "<b>", str)
    assert "<script>" not in drawn
    assert "<b>" not in drawn
    assert "style=" not in drawn
