"""Sending hours and local starts as they are typed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from mailing.cli.commands.mailing_options import parse_local_start
from mailing.sending_hours import hours_text, parse_hours


@pytest.mark.parametrize(
    ("text", "weekdays", "start", "hours", "zone"),
    [
        ("09:00-18:00", [], 9, 9, ""),
        ("mon-fri 09:00-18:00", [1, 2, 3, 4, 5], 9, 9, ""),
        ("Sat,sun 22:00-02:00 Europe/Berlin", [6, 7], 22, 4, "Europe/Berlin"),
        ("fri-mon,wed 10:00-10:00", [1, 3, 5, 6, 7], 10, 24, ""),
    ],
)
def test_hours_are_read_as_typed(text: str, weekdays: list[int], start: int, hours: int, zone: str) -> None:
    found = parse_hours(text)
    assert (list(found.weekdays), found.start.hours, found.duration.seconds // 3600) == (weekdays, start, hours)
    assert found.timezone == zone


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("9:00-18:00", "09:00-18:00"),
        ("wed,mon-fri 09:00-18:00", "mon-fri 09:00-18:00"),
        ("sat-sun 22:00-02:00 Europe/Berlin", "sat,sun 22:00-02:00 Europe/Berlin"),
        ("fri-mon,wed 10:00:30-10:00:30", "mon,wed,fri-sun 10:00:30-10:00:30"),
    ],
)
def test_hours_are_written_as_they_are_read(text: str, written: str) -> None:
    hours = parse_hours(text)
    assert hours_text(hours) == written
    assert parse_hours(written) == hours


@pytest.mark.parametrize("text", ["", "mon", "mon 9", "monday 09:00-18:00", "mon-fri 09:00", "25:00-26:00"])
def test_what_are_no_hours_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not \[DAYS\] HH:MM-HH:MM \[ZONE\]"):
        parse_hours(text)


def test_a_local_start_has_no_zone_and_may_name_the_day() -> None:
    fixed = parse_local_start("2030-01-31 10:00")
    assert (fixed.year, fixed.month, fixed.day, fixed.hours) == (2030, 1, 31, 10)
    named = parse_local_start("tomorrow 10:00")
    tomorrow = datetime.now().astimezone() + timedelta(days=1)
    assert (named.day, named.hours) == (tomorrow.day, 10)
    for text in ("2030-01-31T10:00:00Z", "+10m", "now", ""):
        with pytest.raises(ValueError, match=r"."):
            parse_local_start(text)
