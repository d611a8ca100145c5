"""Plain values become messages of the contract, or a ValueError that says what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing import (
    new_client,
    new_duration,
    new_local_time,
    new_mailing,
    new_phone,
    new_time_of_day,
    new_timestamp,
    new_window,
)
from mailing.builders import parse_moment, parse_span, window_times
from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.time_of_day_pb2 import TimeOfDay

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("09:00", TimeOfDay(hours=9)),
        ("9:05", TimeOfDay(hours=9, minutes=5)),
        ("23:59:59", TimeOfDay(hours=23, minutes=59, seconds=59)),
        (time(6, 30), TimeOfDay(hours=6, minutes=30)),
    ],
)
def test_a_time_of_day_is_read(value: str | time, expected: TimeOfDay) -> None:
    assert new_time_of_day(value) == expected


@pytest.mark.parametrize(
    "value", ["", "24:00", "9", "09:60", "09:00:60", "09:0", "\u0660\u0669:00", " 09:00", "09:00Z"]
)
def test_what_is_no_time_of_day_is_refused_by_name(value: str) -> None:
    with pytest.raises(ValueError, match="is not a time of day such as 09:00") as raised:
        new_time_of_day(value)
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [("09:00", "21:00", 12), ("22:00", "06:00", 8), ("00:00", "00:00", 24), ("18:00", "18:00", 24)],
)
def test_a_window_that_ends_at_or_before_its_start_crosses_midnight(start: str, end: str, hours: int) -> None:
    assert new_window(start, end).duration.seconds == hours * 3600


@given(st.times().map(lambda one: one.replace(microsecond=0)), st.times().map(lambda one: one.replace(microsecond=0)))
def test_a_window_survives_being_written_and_read(start: time, end: time) -> None:
    window = new_window(start, end)
    assert new_window(*window_times(window)) == window
    assert 0 < window.duration.seconds <= 86_400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        ("5m", timedelta(minutes=5)),
        ("5ms", timedelta(milliseconds=5)),
        ("0.5s", timedelta(seconds=0.5)),
        ("2d", timedelta(days=2)),
    ],
)
def test_a_span_is_read(text: str, expected: timedelta) -> None:
    assert parse_span(text) == expected
    assert new_duration(text).ToTimedelta() == expected


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "1m1h", "1e3s", "99999999999d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a span|is too long"):
        parse_span(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("+10m", NOW + timedelta(minutes=10)),
        ("2030-01-31T09:00:00Z", datetime(2030, 1, 31, 9, tzinfo=UTC)),
        ("2030-01-31T09:00:00+03:00", datetime(2030, 1, 31, 6, tzinfo=UTC)),
        ("2030-01-31 09:00", datetime(2030, 1, 31, 9).astimezone()),
    ],
)
def test_a_moment_is_read(text: str, expected: datetime) -> None:
    assert parse_moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "tomorrow", "+", "+5", "10m", "2030-02-30", "+99999999d", "+999999999999d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a moment such as"):
        parse_moment(text, NOW)


def test_a_moment_before_the_first_or_after_the_last_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"out of range|is not a moment"):
        new_timestamp("0001-01-01T00:00:00+14:00")


@pytest.mark.parametrize("text", ["+7 (916) 123-45-67", "79161234567", "+7.916.123.45.67", "0079161234567"])
def test_a_phone_is_read_as_people_write_it(text: str) -> None:
    assert new_phone(text) == "79161234567"


@pytest.mark.parametrize("text", ["12-34", "+7 916 CALL-ME", "", "+0 916 123 45 67", "89161234567"])
def test_what_is_no_international_phone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an international phone number|is a national number"):
        new_phone(text)


def test_a_local_time_has_no_zone() -> None:
    assert new_local_time("2030-01-31T09:30:00") == CivilDateTime(year=2030, month=1, day=31, hours=9, minutes=30)
    assert new_local_time(datetime(2030, 1, 31, 9, 30)) == new_local_time("2030-01-31 09:30")
    for text in ("2030-01-31T09:30:00Z", "tomorrow"):
        with pytest.raises(ValueError, match="a local time such as 2030-01-31T09:30:00"):
            new_local_time(text)


def test_a_client_takes_its_window_as_two_times() -> None:
    client = new_client("70100000001", "UTC", window=("09:00", "10:00"), attributes={"name": "Anna"})
    assert client.receive_window == new_window("09:00", "10:00")
    assert not new_client("70100000001", "UTC").HasField("receive_window")


def test_a_mailing_leaves_out_what_is_not_said() -> None:
    mailing = new_mailing("Hello")
    assert mailing == Mailing(text="Hello")
    assert new_mailing("Hello", snapshot=True, at_most_once=True).semantics == Mailing.SEMANTICS_AT_MOST_ONCE
