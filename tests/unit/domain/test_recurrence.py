"""Recurrences against an oracle that walks through every minute, around clock changes most of all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.recurrence import Recurrence, RecurrenceError, moment_of, occurrences

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Sao_Paulo", "UTC")
CHANGES = [datetime(year, month, day, tzinfo=UTC) for year in range(2026, 2031) for month, day in ((3, 27), (10, 23))]
CHANGES += [datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 4, 3, tzinfo=UTC), datetime(2026, 4, 22, tzinfo=UTC)]
MINUTE = timedelta(minutes=1)


def shown(recurrence: Recurrence, after: datetime, count: int = 3) -> list[str]:
    zone = ZoneInfo(recurrence.timezone)
    return [one.astimezone(zone).isoformat() for one in occurrences(recurrence, after, count)]


def oracle(locals_: set[datetime], after: datetime, before: datetime, zone: ZoneInfo) -> list[datetime]:
    """Walk through the minutes of a zone: a time is due when the clock shows it first, or has jumped over it."""
    due, seen, moment = [], (after - timedelta(days=1)).astimezone(zone).replace(tzinfo=None), after - timedelta(days=1)
    while moment < before:
        shown = moment.astimezone(zone).replace(tzinfo=None)
        if any(seen < local <= shown for local in _minutes(seen, shown) if local in locals_) and moment > after:
            due.append(moment)
        seen, moment = max(seen, shown), moment + MINUTE
    return due


def _minutes(seen: datetime, shown: datetime) -> Iterator[datetime]:
    while (seen := seen + MINUTE) <= shown:
        yield seen


@settings(deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(CHANGES),
    st.sampled_from(["*", "0", "*/20", "30", "5,59"]),
    st.sampled_from(["*", "0", "2", "1-3", "23", "*/6"]),
)
def test_cron_comes_when_the_clock_shows_it_first(zone: str, after: datetime, minute: str, hour: str) -> None:
    expression, before = f"{minute} {hour} * * *", after + timedelta(days=3)
    since = (after - timedelta(days=2)).replace(tzinfo=None)
    locals_ = set(takewhile(lambda one: one < since + timedelta(days=8), CronSim(expression, since)))
    found = takewhile(lambda one: one < before, Recurrence(expression, "", zone).after(after))
    assert list(found) == oracle(locals_, after, before, ZoneInfo(zone))


@settings(deadline=None)
@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(2026, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC)),
    st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY"]),
    st.integers(1, 7),
    st.datetimes(datetime(2015, 1, 1), datetime(2026, 12, 31)),
)
def test_a_rule_goes_on_from_its_start(zone: str, after: datetime, freq: str, interval: int, start: datetime) -> None:
    """Fails when a start that is moved up for speed shifts the periods."""
    start = start.replace(microsecond=0)
    if freq in ("HOURLY", "MINUTELY"):
        start = start.replace(year=after.year, month=after.month, day=max(1, after.day - 1))
    text = f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:FREQ={freq};INTERVAL={interval}"
    local = after.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    expected = (moment_of(one, ZoneInfo(zone)) for one in rrulestr(text).xafter(local - timedelta(hours=5)))
    later = sorted({one for one in islice(expected, 400) if one > after})[:3]
    assert list(islice(Recurrence("", text, zone).after(after), 3))[: len(later)] == later


def test_a_skipped_time_comes_at_the_end_of_the_gap_and_once() -> None:
    night = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert shown(Recurrence("*/20 2 * * *", "", "Europe/Berlin"), night, 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:00:00+02:00",
    ]
    # A whole day was skipped here.
    assert shown(Recurrence("0 9 30 * *", "", "Pacific/Apia"), datetime(2011, 12, 1, tzinfo=UTC), 1) == [
        "2011-12-31T00:00:00+14:00"
    ]


def test_a_doubled_time_counts_the_first_time_only() -> None:
    night = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert shown(Recurrence("30 2 * * *", "", "Europe/Berlin"), night, 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 0 30 2 *", "day-of-month"),
        ("0 10 * *", "five fields"),
        ("0 0 10 * * 1", "five fields"),
        ("60 * * * *", "minute"),
        ("* * * * 1#9", "day-of-week"),
        ("a b c d e", "minute"),
    ],
)
def test_a_bad_cron_expression_is_named(cron: str, words: str) -> None:
    with pytest.raises(RecurrenceError, match=words):
        Recurrence(cron, "", "UTC").check()


@pytest.mark.parametrize(
    ("rrule", "words"),
    [
        ("FREQ=DAILY", "a line DTSTART"),
        ("DTSTART:20261201T100000Z\nRRULE:FREQ=DAILY", "without zone"),
        ("DTSTART;TZID=Europe/Berlin:20261201T100000\nRRULE:FREQ=DAILY", "a line DTSTART"),
        ("DTSTART:00010101T100000\nRRULE:FREQ=DAILY", "years"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=SECONDLY", "FREQ"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=DAILY;BYSECOND=1,2", "BYSECOND"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=DAILY;UNTIL=20270101T000000Z", "UNTIL"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=DAILY;INTERVAL=0", "INTERVAL"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=DAILY;COUNT=99999999", "COUNT"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=DAILY;BYHOUR=99", "RFC 5545"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=MINUTELY;BYMONTH=2", "MINUTELY"),
        ("DTSTART:20261201T100000\nRRULE:FREQ=DAILY;FREQ=DAILY", "once"),
    ],
)
def test_a_bad_rule_is_named(rrule: str, words: str) -> None:
    with pytest.raises(RecurrenceError, match=words):
        Recurrence("", rrule, "UTC").check()


def test_a_rule_with_an_end_or_a_count_comes_to_its_end() -> None:
    after, start = datetime(2026, 12, 1, tzinfo=UTC), "DTSTART:20261130T100000\nRRULE:FREQ=DAILY"
    assert len(occurrences(Recurrence("", f"{start};COUNT=3", "UTC"), after, 9)) == 2
    assert len(occurrences(Recurrence("", f"{start};UNTIL=20261205", "UTC"), after, 9)) == 4
    assert not occurrences(Recurrence("", f"{start};COUNT=1", "UTC"), after, 9)


def test_the_latest_occurrence_is_found_at_any_distance() -> None:
    now = datetime(2026, 12, 1, 12, tzinfo=UTC)
    for cron, latest in (("* * * * *", now), ("0 1 2 3 *", datetime(2026, 3, 2, 1, tzinfo=UTC))):
        assert Recurrence(cron, "", "UTC").latest(now, now - timedelta(days=366)) == latest
    assert Recurrence("0 1 2 3 *", "", "UTC").latest(now, now - timedelta(days=30)) is None
