"""The daily report: which day is due when, what it says, and what needs attention.

Pure. A day is one of a time zone, from midnight to midnight; a report is due at a time of the day that follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import IntEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dispatcher.model.states import MailingState, Reason, Status
from server.domain.recurrence import moment_of

ENDED = (Status.DELIVERED, Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.SKIPPED, Status.UNKNOWN)
"""The columns of the report, in their order."""

NOON = time(12)
SHORTEST_PATIENCE = timedelta(hours=1)
"""For so long a report is tried at least, also one that is due shortly before noon or after it."""

FAILING_SHARE = 0.05
"""The share of failed messages from which a mailing needs attention."""

MOST_ATTENTION = 20

_PAUSES = (60, 120, 300, 600)
"""Seconds between two tries; the last one for all that follow."""


class ReportState(IntEnum):
    """What became of a daily report."""

    TRYING = 1
    HANDED_OVER = 2
    """The mail server is given it, and has not answered."""
    SENT = 3
    FAILED = 4
    UNKNOWN = 5
    """Perhaps sent: its sender died before the mail server had answered."""


@dataclass(frozen=True, slots=True)
class ReportTimes:
    """When reports are due: at a time of the day in a zone."""

    at: time
    zone: ZoneInfo

    def day_due(self, now: datetime) -> date:
        """Return the last day whose report is due."""
        today = now.astimezone(self.zone).date()
        return today - timedelta(days=1 if now >= self._due_on(today) else 2)

    def yesterday(self, now: datetime) -> date:
        """Return the day before the present one."""
        return now.astimezone(self.zone).date() - timedelta(days=1)

    def due_at(self, day: date) -> datetime:
        """Return when the report of a day is due."""
        return self._due_on(day + timedelta(days=1))

    def given_up_at(self, day: date) -> datetime:
        """Return until when the report of a day is tried: noon, or somewhat longer where it is due late."""
        noon = moment_of(datetime.combine(day + timedelta(days=1), NOON), self.zone)
        return max(noon, self.due_at(day) + SHORTEST_PATIENCE)

    def bounds(self, day: date) -> tuple[datetime, datetime]:
        """Return the beginning and the end of a day."""
        begins, ends = (datetime.combine(one, time()) for one in (day, day + timedelta(days=1)))
        return moment_of(begins, self.zone), moment_of(ends, self.zone)

    def _due_on(self, today: date) -> datetime:
        return moment_of(datetime.combine(today, self.at), self.zone)


def pause_after(tries: int) -> timedelta:
    """Return how long to wait after so many failed tries, 1 or more."""
    return timedelta(seconds=_PAUSES[min(tries, len(_PAUSES)) - 1])


@dataclass(frozen=True, slots=True)
class MailingDay:
    """What became of the messages of one mailing on one day."""

    id: int
    title: str
    endpoint: str
    state: MailingState
    counts: Mapping[tuple[Status, Reason], int]

    def total(self, *statuses: Status) -> int:
        """Return how many messages ended in one of the statuses."""
        return sum(n for (status, _), n in self.counts.items() if status in statuses)


class Hour(NamedTuple):
    """What was delivered and what failed in an hour that begins at a moment."""

    begins_at: datetime
    delivered: int
    failed: int


class Occurred(NamedTuple):
    """An event of the day that operators should know, how often it occurred, and the last text of it."""

    event: str
    times: int
    text: str


@dataclass(frozen=True, slots=True)
class DailyReport:
    """The statistics of one day: mailings in the order of their ids, hours with anything in theirs."""

    day: date
    zone: str
    mailings: Sequence[MailingDay]
    hours: Sequence[Hour]
    events: Sequence[Occurred] = ()

    def total(self, *statuses: Status) -> int:
        """Return how many messages ended in one of the statuses on that day."""
        return sum(one.total(*statuses) for one in self.mailings)

    def by_endpoint(self) -> dict[str, dict[Status, int]]:
        """Return the numbers of messages by endpoint and status."""
        found: dict[str, dict[Status, int]] = {}
        for one in self.mailings:
            row = found.setdefault(one.endpoint, dict.fromkeys(ENDED, 0))
            for status in ENDED:
                row[status] += one.total(status)
        return dict(sorted(found.items()))

    def by_reason(self) -> list[tuple[Status, Reason, int]]:
        """Return why messages ended undelivered, the most frequent reason first."""
        found: dict[tuple[Status, Reason], int] = {}
        for one in self.mailings:
            for key, n in one.counts.items():
                if key[0] is not Status.DELIVERED:
                    found[key] = found.get(key, 0) + n
        return [(*key, n) for key, n in sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))]

    def attention(self) -> list[str]:
        """Return what needs attention, a sentence each."""
        return list(self._attention())[:MOST_ATTENTION]

    def _attention(self) -> Iterator[str]:
        for one in self.mailings:
            failed, ended = one.total(Status.FAILED), one.total(*ENDED)
            name = f"Mailing {one.id}{f' {one.title!r}' if one.title else ''}"
            if failed and failed >= FAILING_SHARE * ended:
                yield f"{name}: {failed:,} of {ended:,} messages failed ({failed / ended:.0%})."
            if unknown := one.total(Status.UNKNOWN):
                yield f"{name}: {unknown:,} messages have an unknown outcome; they may have arrived."
            if one.state is MailingState.PAUSED:
                yield f"{name} is paused."
        for event in self.events:
            times = f" ({event.times:,} times)" if event.times > 1 else ""
            yield f"{event.text}{times}"
