"""Schedules: what makes mailings by the clock, and what an occurrence comes to.

`decide` is the whole rule, and pure: of the occurrences that are due the latest counts, if it is no older than the
catch-up window; whether it makes a mailing, waits or is skipped depends on the mailings made before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from server.domain.clients import check_timezone, etag_of
from server.domain.mailings import MAX_TITLE, MailingDefinition, check_mailing
from server.domain.masks import merged
from server.domain.recurrence import MAX_EXPRESSION, Recurrence, RecurrenceError, occurrences
from server.domain.validation import Violations, check_text, invalid

SCHEDULE_FIELDS = ("title", "mailing", "cron", "rrule", "timezone", "end_after", "overlap", "catch_up")
"""The fields of a schedule that callers may set, in the order of the contract."""

BY_OCCURRENCE = ("start_time", "end_time", "local_start")
"""The fields of a mailing that the occurrence gives, so the template must not have them."""

SHOWN_TIMES = 5
"""How many of the next occurrences an answer has."""

DEFAULT_CATCH_UP = timedelta(hours=1)
LONGEST_SPAN = timedelta(days=366)

PUNCTUAL = timedelta(minutes=1)
"""An occurrence is no older than this when a running service comes to it: it was not missed."""


class Overlap(IntEnum):
    """What happens at an occurrence while a mailing of an earlier one is not over. Numbers as in the contract."""

    SKIP = 1
    WAIT = 2
    ALLOW = 3


@dataclass(frozen=True, slots=True)
class ScheduleDefinition:
    """The fields of a schedule that callers set; see `SCHEDULE_FIELDS`. Either `cron` or `rrule` is empty."""

    mailing: MailingDefinition
    timezone: str
    title: str = ""
    cron: str = ""
    rrule: str = ""
    end_after: timedelta | None = None
    overlap: Overlap = Overlap.SKIP
    catch_up: timedelta = DEFAULT_CATCH_UP

    @property
    def recurrence(self) -> Recurrence:
        """When it is due."""
        return Recurrence(self.cron, self.rrule, self.timezone)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first occurrence after a moment; None when there is none."""
        return next(iter(occurrences(self.recurrence, moment, 1)), None)

    def mailing_at(self, moment: datetime) -> MailingDefinition:
        """Return what is made at a moment, which may be an occurrence."""
        end = None if self.end_after is None else moment + self.end_after
        return replace(self.mailing, start_time=moment, end_time=end)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A stored schedule. `version` grows by one with every change that callers make.

    `next_at` is the occurrence to come, None when it is paused or has come to its end; `waiting_at` the one whose
    mailing is made when an earlier one is over.
    """

    id: int
    definition: ScheduleDefinition
    paused: bool
    next_at: datetime | None
    waiting_at: datetime | None
    last_mailing_id: int
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def etag(self) -> str:
        """The fingerprint of this version."""
        return etag_of(self.id, self.version)

    @property
    def next_times(self) -> tuple[datetime, ...]:
        """The next occurrences, up to SHOWN_TIMES."""
        return () if self.next_at is None else times_from(self.definition, self.next_at)


class TemplateCodec(NamedTuple):
    """How a mailing is stored as a template: as the contract writes it in JSON, so that it outlives releases."""

    text_of: Callable[[MailingDefinition], str]
    mailing_of: Callable[[str], MailingDefinition]


class Decision(NamedTuple):
    """What comes of a schedule that is due.

    `make` is the occurrence whose mailing is made, `skipped` the one that makes none because of an earlier mailing,
    `missed` the first one that is too old. `waiting_at` and `next_at` are what the schedule has from then on.
    """

    next_at: datetime | None
    waiting_at: datetime | None = None
    make: datetime | None = None
    skipped: datetime | None = None
    missed: datetime | None = None


def times_from(definition: ScheduleDefinition, first: datetime) -> tuple[datetime, ...]:
    """Return an occurrence and those that follow, SHOWN_TIMES in all."""
    return (first, *occurrences(definition.recurrence, first, SHOWN_TIMES - 1))


def decide(schedule: Schedule, now: datetime, live: bool) -> Decision:
    """Return what comes of a schedule at `now`; `live` means that one of its mailings is not over."""
    due, waiting = schedule.next_at, schedule.waiting_at
    if due is None or due > now:
        return _resolved(schedule, now, due, waiting, live)
    definition = schedule.definition
    coming = definition.next_after(now)
    oldest = now - max(definition.catch_up, PUNCTUAL)
    # What is stored counts even where the rules of the zone have changed since.
    latest = definition.recurrence.latest(now, max(due, oldest)) or (due if due >= oldest else None)
    if latest is None or _is_over(definition, latest, now):
        return _resolved(schedule, now, coming, waiting, live)._replace(missed=due)
    missed = due if due < latest else None
    if live and definition.overlap is Overlap.SKIP:
        return Decision(coming, skipped=latest, missed=missed)
    if live and definition.overlap is Overlap.WAIT:
        return Decision(coming, waiting_at=latest, skipped=waiting, missed=missed)
    return Decision(coming, make=latest, skipped=waiting, missed=missed)


def _resolved(
    schedule: Schedule, now: datetime, next_at: datetime | None, waiting: datetime | None, live: bool
) -> Decision:
    """Return what comes of an occurrence that waits, when no other one is due."""
    if waiting is None or live:
        return Decision(next_at, waiting)
    if _is_over(schedule.definition, waiting, now):
        return Decision(next_at, skipped=waiting)
    return Decision(next_at, make=waiting)


def _is_over(definition: ScheduleDefinition, occurrence: datetime, now: datetime) -> bool:
    """Return whether the mailing of an occurrence would have ended already."""
    return definition.end_after is not None and occurrence + definition.end_after <= now


def check_schedule(schedule: ScheduleDefinition, zones: Collection[str], violations: Violations) -> None:
    """Report every violation, at paths below `schedule`."""
    check_text(schedule.title, MAX_TITLE, "schedule.title", violations)
    inner = Violations()
    check_mailing(schedule.mailing, zones, inner)
    report_below(inner, violations)
    for name in BY_OCCURRENCE:
        if getattr(schedule.mailing, name, None) is not None:
            given = "`end_after` gives the end" if name == "end_time" else "the occurrence gives the start"
            violations.add(f"schedule.mailing.{name}", f"must be absent: {given}")
    _check_recurrence(schedule, zones, violations)
    if schedule.end_after is not None and not PUNCTUAL <= schedule.end_after <= LONGEST_SPAN:
        violations.add("schedule.end_after", "must be 1 minute to 366 days")
    if not timedelta(0) <= schedule.catch_up <= LONGEST_SPAN:
        violations.add("schedule.catch_up", "must be 0 to 366 days")


def report_below(inner: Violations, violations: Violations) -> None:
    """Report the violations of the template of a schedule at their paths in the schedule."""
    for one in inner.found:
        violations.add(f"schedule.{one.path}", one.sentence)


def _check_recurrence(schedule: ScheduleDefinition, zones: Collection[str], violations: Violations) -> None:
    before = len(violations.found)
    check_timezone(schedule.timezone, zones, "schedule.timezone", violations)
    name = "rrule" if schedule.rrule else "cron"
    text = schedule.rrule or schedule.cron
    if not text:
        violations.add("schedule.cron", "is required, or else schedule.rrule: when to make mailings")
    check_text(text, MAX_EXPRESSION, f"schedule.{name}", violations)
    if len(violations.found) > before:
        return
    try:
        schedule.recurrence.check()
    except RecurrenceError as error:
        violations.add(f"schedule.{name}", str(error))


def require_next(definition: ScheduleDefinition, now: datetime) -> datetime:
    """Return the first occurrence after `now`. Raise InvalidFields when there is none."""
    found = definition.next_after(now)
    if found is None:
        raise invalid(f"schedule.{'rrule' if definition.rrule else 'cron'}", "never comes true from now on")
    return found


def amended_schedule(
    before: ScheduleDefinition, patch: ScheduleDefinition, fields: Collection[str], zones: Collection[str]
) -> ScheduleDefinition:
    """Return the definition with `fields`, and parts of fields, taken from `patch`; it has one recurrence at the most.

    Raise InvalidFields.
    """
    after = merged(before, patch, fields, "schedule")
    if "cron" in fields and patch.cron:
        after = replace(after, rrule="")
    elif "rrule" in fields and patch.rrule:
        after = replace(after, cron="")
    violations = Violations()
    check_schedule(after, zones, violations)
    violations.check()
    return after


def schedule_changes(before: ScheduleDefinition, after: ScheduleDefinition) -> frozenset[str]:
    """Return the fields in which the two differ."""
    return frozenset(name for name in SCHEDULE_FIELDS if getattr(before, name) != getattr(after, name))
