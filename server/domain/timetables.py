"""When messages of a mailing may leave, beside the windows of its clients: sending hours, and how late is too late.

Holds the values and their checks. What they come to on a day is computed by the database alone
(`openings_v1`), so that due times, previews and the moment of sending agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from server.domain.clients import check_timezone
from server.domain.validation import Violations, check_count

MAX_SENDING_HOURS = 50
LONGEST_HOURS = timedelta(hours=24)
SHORTEST_SKIP, LONGEST_SKIP = timedelta(minutes=1), timedelta(days=366)

_EASTERNMOST = timedelta(hours=14)
_DAY, _WEEK = 86400, 7 * 86400


@dataclass(frozen=True, slots=True)
class SendingHours:
    """A span of some days of the week, 1 (Monday) to 7: of every day without any. Without a zone in each client's."""

    weekdays: tuple[int, ...]
    start: time
    duration: timedelta
    timezone: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as the database reads it."""
        seconds = self.duration // timedelta(seconds=1)
        given: dict[str, Any] = {"weekdays": list(self.weekdays), "timezone": self.timezone}
        return {"start": self.start.isoformat(), "seconds": seconds} | {
            key: value for key, value in given.items() if value
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> SendingHours:
        """Return the hours that `as_json` made this of."""
        return cls(
            tuple(fields.get("weekdays", ())),
            time.fromisoformat(fields["start"]),
            timedelta(seconds=fields["seconds"]),
            fields.get("timezone", ""),
        )

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield when it is open in a week without changes of the clock, in seconds from Monday 00:00 on."""
        start = timedelta(hours=self.start.hour, minutes=self.start.minute, seconds=self.start.second)
        for weekday in self.weekdays or range(1, 8):
            begin = (weekday - 1) * _DAY + start // timedelta(seconds=1)
            yield begin, begin + self.duration // timedelta(seconds=1)


def check_sending_hours(
    hours: Sequence[SendingHours], zones: Collection[str], path: str, violations: Violations
) -> None:
    """Report hours whose number, length or zone is out of the limits, and those that overlap."""
    if not check_count(hours, MAX_SENDING_HOURS, path, violations):
        return
    for index, one in enumerate(hours):
        at = f"{path}[{index}]"
        if not timedelta(0) < one.duration <= LONGEST_HOURS:
            violations.add(f"{at}.duration", "must be more than 0 and at most 24 hours")
        elif one.duration.microseconds:
            violations.add(f"{at}.duration", "must be whole seconds")
        if one.timezone:
            check_timezone(one.timezone, zones, f"{at}.timezone", violations)
        earlier = (other for other in range(index) if hours[other].timezone == one.timezone)
        if (other := next((other for other in earlier if _overlap(hours[other], one)), None)) is not None:
            violations.add(
                at, f"overlaps {path.partition('.')[2]}[{other}]: join them, or let one end before the other"
            )


def _overlap(one: SendingHours, other: SendingHours) -> bool:
    """Return whether both are open at some moment of a week, which follows upon itself."""
    return any(
        begin < until + shift and since + shift < end
        for begin, end in one.spans()
        for since, until in other.spans()
        for shift in (-_WEEK, 0, _WEEK)
    )


def earliest(local: datetime) -> datetime:
    """Return when the first zone of the world shows a time on its clocks."""
    return local.replace(tzinfo=UTC) - _EASTERNMOST


def check_skip_after(span: timedelta | None, path: str, violations: Violations) -> None:
    """Report a span that is out of the limits."""
    if span is not None and not SHORTEST_SKIP <= span <= LONGEST_SKIP:
        violations.add(path, "must be from 1 minute to 366 days")
