"""When messages may leave by the timetables of the model's mailings, on clocks that are never changed for summer.

As the functions of the database do it, with days as short as a client's: inside the window and the hours, on no
holiday, not before the local start, and not after a while. Everything is counted in seconds of the client's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.model.states import Reason
from tests.simulation.world import EPOCH

if TYPE_CHECKING:
    from tests.simulation.rows import Client

NEVER = datetime.max.replace(tzinfo=EPOCH.tzinfo)
DAYS_AHEAD = 8
"""How many days are looked ahead; what is open for longer never closes, what opens later never opens."""

Spans = Sequence[tuple[float, float]]


class Departure(NamedTuple):
    """When a message may leave and until when, and the reason why it cannot."""

    opens_at: datetime
    closes_at: datetime
    reason: Reason


@dataclass(frozen=True)
class Timetable:
    """Hours as seconds of the day and lengths, holidays by the number of the day, a local start on the client's clock.

    `skip_after` is in seconds.
    """

    hours: Spans = ()
    holidays: frozenset[int] = frozenset()
    local_start: float | None = None
    skip_after: float | None = None

    def __bool__(self) -> bool:
        return self != Timetable()

    def starts_at(self, client: Client) -> datetime | None:
        """Return when the client's clock shows the local start."""
        return None if self.local_start is None else EPOCH + timedelta(seconds=self.local_start - client.ahead)

    def departure(self, client: Client, ends_at: datetime | None, due_since: datetime, moment: datetime) -> Departure:
        """Return when a message may leave at or after a moment, which is due since the first opening after another."""
        start, end = self.starts_at(client), ends_at or NEVER
        opens_at, closes_at = self.opening(client, max(moment, start or moment))
        late_at = self.late_at(client, due_since)
        closes_at = min(closes_at, late_at)
        if opens_at < min(end, late_at):
            return Departure(opens_at, closes_at, Reason.NONE)
        shown = max(moment, start or moment) if opens_at == NEVER else opens_at
        return Departure(shown, closes_at, self._reason(client, end, opens_at, moment))

    def _reason(self, client: Client, end: datetime, opens_at: datetime, moment: datetime) -> Reason:
        if opens_at < end:
            return Reason.TOO_LATE
        if moment >= end:
            return Reason.MAILING_ENDED
        windowed = client.opens is not None and client.opens_at(moment) >= end
        return Reason.WINDOW_NOT_BEFORE_END if windowed else Reason.HOURS_NOT_BEFORE_END

    def allows(self, client: Client, due_since: datetime, moment: datetime) -> bool:
        """Return whether a message may leave at a moment."""
        start = self.starts_at(client)
        if (start is not None and moment < start) or moment >= self.late_at(client, due_since):
            return False
        return self.opening(client, moment)[0] == moment

    def late_at(self, client: Client, due_since: datetime) -> datetime:
        """Return from when on it is too late."""
        if self.skip_after is None:
            return NEVER
        first, _ = self.opening(client, self.starts_at(client) or due_since)
        return NEVER if first == NEVER else first + timedelta(seconds=self.skip_after)

    def opening(self, client: Client, moment: datetime) -> tuple[datetime, datetime]:
        """Return the first moment at or after another inside window and hours, on no holiday, and until when."""
        since = (moment - EPOCH).total_seconds() + client.ahead
        until = since + DAYS_AHEAD * client.day
        first = int(since // client.day) - 2
        days = [n * client.day for n in range(first, first + DAYS_AHEAD + 4)]
        spans: Spans = [(since, until)]
        if client.opens is not None:
            spans = _both(spans, _joined((day + client.opens, day + client.opens + client.length) for day in days))
        if self.hours:
            spans = _both(
                spans, _joined((day + start, day + start + length) for day in days for start, length in self.hours)
            )
        if self.holidays:
            working = [day for day in days if round(day / client.day) not in self.holidays]
            spans = _both(spans, _joined((day, day + client.day) for day in working))
        if not spans:
            return NEVER, NEVER
        opens, closes = spans[0]
        closes_at = NEVER if closes >= until else _moment(closes, client)
        return (moment if opens == since else _moment(opens, client)), closes_at


def _moment(seconds: float, client: Client) -> datetime:
    return EPOCH + timedelta(seconds=round(seconds - client.ahead, 6))


def _joined(spans: Iterable[tuple[float, float]]) -> Spans:
    """Return spans as few as possible, ascending."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if joined and begin <= round(joined[-1][1], 6):
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def _both(some: Spans, others: Spans) -> Spans:
    """Return what is inside both."""
    found = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return sorted((begin, end) for begin, end in found if end - begin > 5e-7)
