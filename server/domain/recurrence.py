"""Recurrences: the moments at which a schedule is due, by cron or by a rule of RFC 5545, in a time zone.

Both are read as times on a wall clock without zone, and `moment_of` alone puts those into the zone: a time that a
clock change skips comes at the end of the gap, one that comes twice counts the first time, and times that become
the same moment are one occurrence. Pure functions; what does not come within SEARCHED_YEARS never comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrulestr

SEARCHED_YEARS = 50
"""How far the next occurrence is looked for; with a rule by days or weeks, which takes longer, SEARCHED_SHORTLY."""

SEARCHED_SHORTLY = 12
"""More than the eight years that may lie between two 29th of February."""

MOST_SKIPPED = 100_000
"""Times of a rule between its start and the present that are walked over to find the next one."""

MOST_COUNT = 10_000
"""The largest COUNT of a rule: its times are counted from the start on."""

MAX_EXPRESSION = 500
"""Characters of a cron expression or a rule."""

CRON_EXAMPLE = "0 10 * * 1-5"
RRULE_EXAMPLE = "DTSTART:20261201T100000\\nRRULE:FREQ=MONTHLY;BYDAY=1MO"

_PERIODS = {
    "YEARLY": None,
    "MONTHLY": None,
    "WEEKLY": timedelta(weeks=1),
    "DAILY": timedelta(days=1),
    "HOURLY": timedelta(hours=1),
    "MINUTELY": timedelta(minutes=1),
}
"""The length of a rule's period by its FREQ; None where periods differ."""

_OF_SHORT_PERIODS = frozenset({"FREQ", "INTERVAL", "WKST", "BYDAY", "BYHOUR", "BYMINUTE"})
"""The parts of rules with a period below a day: what days they exclude is over within a week."""

_DAYS_OF = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_FIRST_YEAR, _LAST_YEAR = 1970, 2200
_SECOND = timedelta(seconds=1)


class RecurrenceError(ValueError):
    """An expression that is none; the message completes "schedule.cron …"."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Either a cron expression or a rule, the other empty, and the IANA name of its zone."""

    cron: str
    rrule: str
    timezone: str

    def check(self) -> None:
        """Raise RecurrenceError for an expression that is none."""
        self._local_times(datetime(2000, 1, 1))

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the occurrences after `moment`, in order and in UTC. Raise RecurrenceError."""
        zone, last = ZoneInfo(self.timezone), moment
        for local in self._local_times(moment.astimezone(zone).replace(tzinfo=None)):
            occurrence = moment_of(local, zone)
            if occurrence > last:
                yield occurrence
                last = occurrence

    def _local_times(self, since: datetime) -> Iterator[datetime]:
        """Yield the times on the wall clock after `since`. Raise RecurrenceError."""
        if self.cron:
            return _cron(self.cron, since)
        return Rule.parse(self.rrule).after(since)

    def latest(self, moment: datetime, not_before: datetime) -> datetime | None:
        """Return the last occurrence up to `moment`, None if it was before `not_before`.

        Look back in growing steps: what comes often is found in the first one.
        """
        for span in (timedelta(hours=1), timedelta(days=1), timedelta(days=31), moment - not_before):
            since = max(moment - span, not_before) - timedelta(microseconds=1)
            found = None
            for occurrence in self.after(since):
                if occurrence > moment:
                    break
                found = occurrence
            if found or since < not_before:
                return found
        return None


@lru_cache(4096)
def occurrences(recurrence: Recurrence, after: datetime, count: int) -> tuple[datetime, ...]:
    """Return the first `count` occurrences after a moment, fewer where it ends. Raise RecurrenceError."""
    return tuple(islice(recurrence.after(after), count))


def moment_of(local: datetime, zone: ZoneInfo) -> datetime:
    """Return when the clocks of a zone show `local`, the first time; if they skip it, the end of that gap."""
    first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    assert before is not None
    assert after is not None
    if after <= before:
        return first.astimezone(UTC)
    early, late = (local - after).replace(tzinfo=UTC), (local - before).replace(tzinfo=UTC)
    while late - early > _SECOND:  # clocks change at whole seconds
        middle = early + (late - early) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == after:
            late = middle
        else:
            early = middle
    return late


def _cron(expression: str, since: datetime) -> Iterator[datetime]:
    if len(expression.split()) != 5:
        raise RecurrenceError(f"must have five fields, minute to day of the week, such as `{CRON_EXAMPLE}`")
    try:
        return iter(CronSim(expression, since))
    except CronSimError as error:
        raise RecurrenceError(f"has a {str(error).lower()}; an example is `{CRON_EXAMPLE}`") from None
    except (ValueError, TypeError, AssertionError):
        raise RecurrenceError(f"is no cron expression such as `{CRON_EXAMPLE}`") from None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of RFC 5545 with its start; start and end are times on the wall clock.

    Its COUNT and UNTIL are kept apart from the other `parts`: what never comes true is not followed to the year 9999.
    """

    start: datetime
    parts: Mapping[str, str]
    until: datetime | None = None
    count: int | None = None

    @staticmethod
    def parse(text: str) -> Rule:
        """Return the rule of `DTSTART:…` and `RRULE:…` on lines of their own. Raise RecurrenceError."""
        lines = dict(line.strip().partition(":")[::2] for line in text.upper().splitlines() if line.strip())
        if lines.keys() != {"DTSTART", "RRULE"}:
            raise RecurrenceError(f"must have a line DTSTART and a line RRULE and no other, such as {RRULE_EXAMPLE}")
        parts = _parts(lines["RRULE"])
        until, count = parts.pop("UNTIL", None), parts.pop("COUNT", None)
        _check_parts(parts)
        start = _clock_time("DTSTART", lines["DTSTART"])
        rule = Rule(
            start,
            parts,
            until=None if until is None else _clock_time("UNTIL", until),
            count=None if count is None else _whole("COUNT", count, MOST_COUNT),
        )
        rule._times(start, start)
        return rule

    def after(self, since: datetime) -> Iterator[datetime]:
        """Yield the times after `since` that are not too far ahead. Raise RecurrenceError."""
        years = SEARCHED_YEARS if _PERIODS[self.parts["FREQ"]] is None else SEARCHED_SHORTLY
        skipped, end = 0, max(self.start, since) + timedelta(days=366 * years)
        for local in islice(self._times(self._start_near(since), min(self.until or end, end)), self.count):
            if local > since:
                yield local
            elif (skipped := skipped + 1) > MOST_SKIPPED:
                raise RecurrenceError("has too many times between its start and the present: move its DTSTART")

    def _times(self, start: datetime, end: datetime) -> Iterator[datetime]:
        parts = dict(self.parts) | {"UNTIL": f"{end:%Y%m%dT%H%M%S}"}
        try:
            return iter(rrulestr(";".join(f"{name}={value}" for name, value in parts.items()), dtstart=start))
        except Exception:  # of many types: whatever was written is no rule
            raise RecurrenceError(f"is no rule of RFC 5545 such as {RRULE_EXAMPLE}") from None

    def _start_near(self, since: datetime) -> datetime:
        """Return a start shortly before `since` with which the rule is the same from then on.

        That of a rule that is counted stays, and one on a day that not every month has.
        """
        interval, period = int(self.parts.get("INTERVAL", 1)), _PERIODS[self.parts["FREQ"]]
        if self.count is not None or since <= self.start:
            return self.start
        if period is not None:
            span = interval * period
            return self.start + max((since - self.start) // span - 1, 0) * span
        if self.start.day > 28:
            return self.start
        months = interval * (12 if self.parts["FREQ"] == "YEARLY" else 1)
        passed = 12 * (since.year - self.start.year) + since.month - self.start.month
        at = 12 * self.start.year + self.start.month - 1 + max(passed // months - 1, 0) * months
        return self.start.replace(year=at // 12, month=at % 12 + 1)


def _parts(text: str) -> dict[str, str]:
    parts = [part.partition("=")[::2] for part in text.split(";") if part]
    if len(dict(parts)) != len(parts):
        raise RecurrenceError("must name each part of its RRULE once")
    return {name.strip(): value.strip() for name, value in parts}


def _check_parts(parts: Mapping[str, str]) -> None:
    """Raise RecurrenceError for a rule that is not served, or would be followed for long before it comes true."""
    frequency = parts.get("FREQ", "")
    if frequency not in _PERIODS:
        raise RecurrenceError(f"must have a FREQ of {', '.join(_PERIODS)}")
    if "BYSECOND" in parts:
        raise RecurrenceError("must not have BYSECOND: no two occurrences are in the same minute")
    if frequency in ("HOURLY", "MINUTELY") and not parts.keys() <= _OF_SHORT_PERIODS:
        raise RecurrenceError(f"with FREQ={frequency} may have {', '.join(sorted(_OF_SHORT_PERIODS - {'FREQ'}))} only")
    if "INTERVAL" in parts:
        _whole("INTERVAL", parts["INTERVAL"], MOST_COUNT)
    days, months = (re.findall(r"\d+", parts.get(name, "")) for name in ("BYMONTHDAY", "BYMONTH"))
    if days and months and min(map(int, days)) > max(_DAYS_OF[int(month) % 13] for month in months):
        raise RecurrenceError("never comes true: its months do not have such a day")


def _whole(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= most):
        raise RecurrenceError(f"must have {name} from 1 to {most:,}")
    return int(text)


def _clock_time(name: str, text: str) -> datetime:
    try:
        found = datetime.strptime(text, "%Y%m%dT%H%M%S" if "T" in text else "%Y%m%d")
    except ValueError:
        raise RecurrenceError(
            f"must have {name} as 20261201T100000, without zone: it is a time in the zone `timezone`"
        ) from None
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise RecurrenceError(f"must have {name} in the years {_FIRST_YEAR} to {_LAST_YEAR}")
    return found
