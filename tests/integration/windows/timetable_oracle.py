"""When a message may leave by the timetable of its mailing, worked out from zoneinfo alone.

A moment is judged by what a clock on the wall shows at it, whatever the database thinks: is it inside
the window and inside one of the sending hours, is its date no holiday, has the clock shown the local
start? The answer can only change where a window or hours open or close, where a date begins, where the
clock is changed and where it shows the local start, so looking there finds the next opening and its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from server.domain.timetables import SendingHours
from tests.integration.windows.oracle import DAY, Window, begins_at, changes

LOOKED_AHEAD = 12 * DAY
"""How far the oracle looks."""

NEVER = datetime.max.replace(tzinfo=UTC)


class Timetable(NamedTuple):
    """All that decides when a message to a client may leave."""

    zone: str
    window: tuple[time, timedelta] | None
    hours: tuple[SendingHours, ...]
    holidays: frozenset[date]
    local_start: datetime | None

    def next_opening(self, moment: datetime) -> Window:
        """Return the first moment at or after another at which it may leave, and until when; NEVER if not soon."""
        edges = sorted({moment, *self._edges(moment)})
        opens_at = next((edge for edge in edges if self._allows(edge)), NEVER)
        closes_at = next((edge for edge in edges if edge > opens_at and not self._allows(edge)), NEVER)
        return Window(opens_at, closes_at)

    def starts_at(self) -> datetime:
        """Return the first moment at which the clock shows the local start or a later time."""
        assert self.local_start is not None
        around = self.local_start.replace(tzinfo=UTC)
        candidates = {around + timedelta(minutes=15 * n) for n in range(-4 * 15, 4 * 15)}
        candidates |= {
            change for year in (around.year - 1, around.year, around.year + 1) for change in changes(self.zone, year)
        }
        return min(
            moment for moment in candidates if around - DAY < moment < around + DAY and self._has_started(moment)
        )

    def _edges(self, moment: datetime) -> Iterator[datetime]:
        last = moment + LOOKED_AHEAD
        for one in self._spans(moment, last):
            yield from (edge for edge in one if moment < edge < last)
        for year in {moment.year, last.year}:
            yield from (change for change in changes(self.zone, year) if moment < change < last)
        for n in range(-2, LOOKED_AHEAD // DAY + 3):
            midnight = datetime.combine(moment.date() + n * DAY, time())
            yield from (edge for edge in self._shows(midnight) if moment < edge < last)
        if self.local_start is not None:
            yield from (edge for edge in self._shows(self.local_start) if moment < edge < last)

    def _shows(self, local: datetime) -> Iterator[datetime]:
        """Yield the moments at which the clock shows a time, perhaps among others."""
        place = ZoneInfo(self.zone)
        for hours in range(-36, 37, 12):
            offset = (local + timedelta(hours=hours)).replace(tzinfo=UTC).astimezone(place).utcoffset()
            assert offset is not None
            yield (local - offset).replace(tzinfo=UTC)

    def _spans(self, since: datetime, until: datetime) -> Iterator[Window]:
        days = [since.date() + n * DAY for n in range(-3, (until - since) // DAY + 3)]
        if self.window is not None:
            yield from (self._span(self.zone, day, *self.window) for day in days)
        for one in self.hours:
            yield from self._hours_on(one, days)

    def _hours_on(self, one: SendingHours, days: list[date]) -> Iterator[Window]:
        for day in days:
            if not one.weekdays or day.isoweekday() in one.weekdays:
                yield self._span(one.timezone or self.zone, day, one.start, one.duration)

    def _span(self, zone: str, day: date, start: time, length: timedelta) -> Window:
        opens_at = begins_at(zone, day, start)
        return Window(opens_at, opens_at + length)

    def _allows(self, moment: datetime) -> bool:
        days = [moment.date() + n * DAY for n in range(-3, 3)]
        if self.window and not any(_holds(self._span(self.zone, day, *self.window), moment) for day in days):
            return False
        if self.hours and not any(_holds(span, moment) for one in self.hours for span in self._hours_on(one, days)):
            return False
        if self._local(moment).date() in self.holidays:
            return False
        return self.local_start is None or self._has_started(moment)

    def _has_started(self, moment: datetime) -> bool:
        """Return whether the clock shows the local start or a later time, or did before it was put back."""
        assert self.local_start is not None
        before = [change - timedelta(microseconds=1) for change in changes(self.zone, moment.year) if change <= moment]
        recent = [one for one in before if moment - one < DAY]
        return any(self._local(one) >= self.local_start for one in (moment, *recent))

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)


def _holds(span: Window, moment: datetime) -> bool:
    return span.opens_at <= moment < span.closes_at
