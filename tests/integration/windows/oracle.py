"""When a client's window is open, worked out from zoneinfo alone and without the database's ideas.

The database goes from a moment to the days around it. Here it is the other way round: the
windows of many days are laid out one by one, and the moment is looked for among them. Where a
day begins its window is read off the clock on the wall: of all UTC offsets that the zone has
around that day, those are kept with which a clock would really show the start.

- The clock shows it once: that is the start.
- It shows it twice (the clock was put back): the second time counts.
- It never shows it (the clock was put forward): the start comes as long after the change as it
  would have, had the clock gone on as before it.
- A window lasts its length in time that passes, not by the clock on the wall.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


class Window(NamedTuple):
    """One day's window: from `opens_at` until just before `closes_at`."""

    opens_at: datetime
    closes_at: datetime


@lru_cache(maxsize=200_000)
def begins_at(zone: str, day: date, start: time) -> datetime:
    """Return the moment at which the window of `day` opens."""
    local = datetime.combine(day, start)
    place = ZoneInfo(zone)
    around = [(local + timedelta(hours=hours)).replace(tzinfo=UTC) for hours in range(-36, 37, 12)]
    offsets = [_offset(place, moment) for moment in around]
    shown = [moment for offset in offsets if _offset(place, moment := (local - offset).replace(tzinfo=UTC)) == offset]
    return max(shown) if shown else (local - offsets[0]).replace(tzinfo=UTC)


def _offset(place: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(place).utcoffset()
    assert offset is not None
    return offset


def windows_around(zone: str, start: time, length: timedelta, moment: datetime) -> list[Window]:
    """Return the windows of all days that could matter at `moment`, in their order."""
    today = moment.date()
    openings = [begins_at(zone, today + n * DAY, start) for n in range(-3, 3)]
    return [Window(opens_at, opens_at + length) for opens_at in openings]


def next_window(zone: str, start: time, length: timedelta, moment: datetime) -> Window:
    """Return the first moment at or after `moment` inside a window, and when that window closes.

    Two windows overlap where a day is shorter than they are long: then the earlier one counts.
    """
    first = min(window for window in windows_around(zone, start, length, moment) if window.closes_at > moment)
    return Window(max(first.opens_at, moment), first.closes_at)


def is_inside(zone: str, start: time, length: timedelta, since: datetime, until: datetime) -> bool:
    """Return whether the client may be reached at every moment from `since` until just before `until`."""
    reached = since
    for window in windows_around(zone, start, length, since):
        if window.opens_at <= reached < window.closes_at:
            reached = window.closes_at
    return since < until <= reached


@lru_cache(maxsize=2000)
def changes(zone: str, year: int) -> list[datetime]:
    """Return the moments of a year at which a zone's clocks are changed, to the second."""
    place = ZoneInfo(zone)
    days = [datetime(year, 1, 1, tzinfo=UTC) + n * DAY for n in range(367)]
    return [
        _change(place, before, after)
        for before, after in pairwise(days)
        if _offset(place, before) != _offset(place, after)
    ]


def _change(place: ZoneInfo, before: datetime, after: datetime) -> datetime:
    offset = _offset(place, before)
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        before, after = (middle, after) if _offset(place, middle) == offset else (before, middle)
    return after
