"""Mailings: their definition and progress, and which fields may change in which state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from dispatcher.model.quotas import MOST_PER_DAY, DayLimit, day_limit
from dispatcher.model.rates import RATES, is_rate
from dispatcher.model.states import STATE_TRANSITIONS, STATUS_TRANSITIONS, AudienceMode, MailingState, Semantics, Status
from dispatcher.model.templates import TemplateError, parse
from server.domain.clients import check_timezone, etag_of
from server.domain.errors import InvalidFields, WrongState
from server.domain.filters import ClientFilter, check_filter
from server.domain.masks import fields_of_parts, merged
from server.domain.timetables import SendingHours, check_sending_hours, check_skip_after, earliest
from server.domain.validation import Violations, check_count, check_text, invalid

MAILING_FIELDS = (
    "title",
    "text",
    "filter",
    "start_time",
    "end_time",
    "audience_mode",
    "semantics",
    "priority",
    "max_rate",
    "max_per_day",
    "max_per_day_timezone",
    "endpoint",
    "retry",
    "labels",
    "important",
    "sending_hours",
    "holidays",
    "local_start",
    "skip_after",
)
"""The fields of a mailing that callers may set, in the order of the contract."""

MAX_TITLE = 200
MAX_TEXT = 4000
MAX_LABELS = 32
MAX_LABEL = 100
LONGEST_ESTIMATE = timedelta(days=3650)

TIMETABLE = frozenset({"sending_hours", "holidays", "local_start", "skip_after"})
"""The fields by which messages wait, or are too late; what waits is judged anew when one changes."""

_ALWAYS = frozenset({"title", "labels"})
_WHILE_LIVE = _ALWAYS | {
    "text",
    "filter",
    "end_time",
    "priority",
    "max_rate",
    "max_per_day",
    "max_per_day_timezone",
    "retry",
    "important",
    "sending_hours",
    "holidays",
    "skip_after",
}

CHANGEABLE: Mapping[MailingState, frozenset[str]] = {
    MailingState.SCHEDULED: frozenset(MAILING_FIELDS),
    MailingState.RUNNING: _WHILE_LIVE | {"start_time", "local_start"},
    MailingState.PAUSED: _WHILE_LIVE,
    MailingState.COMPLETED: _ALWAYS | {"end_time"},
    MailingState.CANCELLED: _ALWAYS,
}
"""Which fields an update may change in each state, unless `fixed_since_start` has them."""

_FIXED = frozenset({"audience_mode", "semantics", "endpoint"})

DELETABLE = frozenset({MailingState.SCHEDULED, MailingState.COMPLETED, MailingState.CANCELLED})
PAUSABLE = frozenset({MailingState.SCHEDULED, MailingState.RUNNING})
RESUMABLE = frozenset({MailingState.PAUSED})
CANCELLABLE = frozenset(state for state, after in STATE_TRANSITIONS.items() if MailingState.CANCELLED in after)
RETRYABLE = frozenset({MailingState.RUNNING, MailingState.PAUSED, MailingState.COMPLETED})
REQUEUEABLE = frozenset(status for status, after in STATUS_TRANSITIONS.items() if Status.PENDING in after)
"""The statuses from which RetryMailing returns messages to PENDING."""


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How failed attempts are retried: 1 to 100 attempts in all, with growing back-offs."""

    max_attempts: int = 5
    initial_backoff: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class MailingDefinition:
    """The fields of a mailing that callers set; see `MAILING_FIELDS`. Without any start it means now."""

    text: str
    title: str = ""
    filter: ClientFilter = field(default_factory=ClientFilter)
    start_time: datetime | None = None
    end_time: datetime | None = None
    audience_mode: AudienceMode = AudienceMode.OPEN
    semantics: Semantics = Semantics.AT_LEAST_ONCE
    priority: int = 0
    max_rate: float = 0.0
    max_per_day: int = 0
    max_per_day_timezone: str = ""
    endpoint: str = ""
    retry: RetryRule = field(default_factory=RetryRule)
    labels: Mapping[str, str] = field(default_factory=dict)
    important: bool = False
    sending_hours: tuple[SendingHours, ...] = ()
    holidays: str = ""
    local_start: datetime | None = None
    """By the clock in each client's zone; then there is no `start_time`."""
    skip_after: timedelta | None = None

    @property
    def day_limit(self) -> DayLimit | None:
        """Its daily quota, None for none."""
        return day_limit(self.max_per_day, self.max_per_day_timezone)


class ReceiptTotals(NamedTuple):
    """Messages by the receipt that holds."""

    sent: int = 0
    received: int = 0
    undelivered: int = 0
    read: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Messages by status. `rate` is deliveries a second over the last seconds."""

    total: int = 0
    pending: int = 0
    delivered: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    skipped: int = 0
    unknown: int = 0
    attempts: int = 0
    first_delivered_at: datetime | None = None
    last_delivered_at: datetime | None = None
    rate: float = 0.0
    estimated_finish_at: datetime | None = None
    expanded: bool = False
    receipts: ReceiptTotals | None = None


@dataclass(frozen=True, slots=True)
class Mailing:
    """A stored mailing. `version` grows by one with every change of definition or state.

    `schedule_id` is the schedule that made it, 0 for none; `occurrence_at` the occurrence for which it did.
    `begins_at` is when sending begins or began; None while the first zone to reach its local start is not known.
    """

    id: int
    definition: MailingDefinition
    state: MailingState
    version: int
    created_at: datetime
    updated_at: datetime
    progress: Progress
    schedule_id: int = 0
    occurrence_at: datetime | None = None
    begins_at: datetime | None = None

    @property
    def etag(self) -> str:
        """The fingerprint of this version."""
        return etag_of(self.id, self.version)


@dataclass(frozen=True, slots=True)
class MailingQuery:
    """Which mailings a list returns: any of the states, all of the labels, `text` in title or text, of one schedule.

    Empty means all.
    """

    states: tuple[MailingState, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    schedule_id: int = 0

    def later_parts(self) -> list[object]:
        """Return what was added to queries since page tokens exist; empty where a query has none of it."""
        return [part for part in (self.text, self.schedule_id) if part]


def estimated_finish(pending: int, rate: float, now: datetime) -> datetime | None:
    """Return when `pending` messages will be settled at `rate` a second; None when nothing is sent."""
    if pending <= 0 or rate <= 0 or pending / rate > LONGEST_ESTIMATE.total_seconds():
        return None
    return now + timedelta(seconds=pending / rate)


def check_mailing(
    mailing: MailingDefinition,
    zones: Collection[str],
    violations: Violations,
    fields: Collection[str] = MAILING_FIELDS,
) -> None:
    """Report every violation among `fields`, at paths below `mailing`."""
    checks: dict[str, Callable[[str], None]] = {
        "title": lambda at: check_text(mailing.title, MAX_TITLE, at, violations),
        "text": lambda at: check_template(mailing.text, at, violations),
        "filter": lambda at: check_filter(mailing.filter, zones, at, violations),
        "priority": lambda at: _check_priority(mailing.priority, at, violations),
        "max_rate": lambda at: _check_rate(mailing.max_rate, at, violations),
        "max_per_day": lambda at: _check_quota(mailing.max_per_day, at, violations),
        "max_per_day_timezone": lambda at: _check_quota_zone(mailing.max_per_day_timezone, zones, at, violations),
        "endpoint": lambda at: check_text(mailing.endpoint, MAX_LABEL, at, violations),
        "retry": lambda at: _check_retry(mailing.retry, at, violations),
        "labels": lambda at: check_labels(mailing.labels, at, violations),
        "sending_hours": lambda at: check_sending_hours(mailing.sending_hours, zones, at, violations),
        "holidays": lambda at: check_text(mailing.holidays, MAX_LABEL, at, violations),
        "skip_after": lambda at: check_skip_after(mailing.skip_after, at, violations),
    }
    for name, check in checks.items():
        if name in fields:
            check(f"mailing.{name}")
    if not {"start_time", "local_start", "end_time"}.isdisjoint(fields):
        check_order(mailing, violations)
    if mailing.start_time and mailing.local_start and {"start_time", "local_start"}.issubset(fields):
        violations.add("mailing.local_start", "must not be given together with start_time: one of them is the start")


def check_template(text: str, path: str, violations: Violations) -> None:
    """Report a text that is empty, too long or not a template."""
    if not text.strip():
        violations.add(path, "is required: what to send")
        return
    check_text(text, MAX_TEXT, path, violations)
    try:
        parse(text)
    except TemplateError as error:
        violations.add(path, f"has {error}")


def check_order(mailing: MailingDefinition, violations: Violations) -> None:
    """Report an end that is not after the start."""
    start = mailing.start_time or (earliest(mailing.local_start) if mailing.local_start else None)
    if start and mailing.end_time and mailing.end_time <= start:
        violations.add("mailing.end_time", "must be after the start")


def check_labels(labels: Mapping[str, str], path: str, violations: Violations) -> None:
    """Report labels whose number, names or values are out of the limits."""
    if not check_count(labels, MAX_LABELS, path, violations):
        return
    for name, value in labels.items():
        if not name:
            violations.add(path, "the name of a label must not be empty")
        check_text(name, MAX_LABEL, path, violations)
        check_text(value, MAX_LABEL, f"{path}.{name[:MAX_LABEL]}", violations)


def _check_priority(priority: int, path: str, violations: Violations) -> None:
    if not -1000 <= priority <= 1000:
        violations.add(path, "must be from -1,000 to 1,000")


def _check_quota(most: int, path: str, violations: Violations) -> None:
    if not 0 <= most <= MOST_PER_DAY:
        violations.add(path, f"must be from 0, for no limit, to {MOST_PER_DAY:,}")


def _check_quota_zone(timezone: str, zones: Collection[str], path: str, violations: Violations) -> None:
    if timezone:
        check_timezone(timezone, zones, path, violations)


def _check_rate(rate: float, path: str, violations: Violations) -> None:
    if not is_rate(rate):
        violations.add(path, f"must be {RATES}")


def _check_retry(retry: RetryRule, path: str, violations: Violations) -> None:
    if not 1 <= retry.max_attempts <= 100:
        violations.add(f"{path}.max_attempts", "must be 1 to 100, or 0 for the default")
    if not timedelta(milliseconds=10) <= retry.initial_backoff <= timedelta(hours=1):
        violations.add(f"{path}.initial_backoff", "must be 10 ms to 1 hour")
    if not retry.initial_backoff <= retry.max_backoff <= timedelta(hours=24):
        violations.add(f"{path}.max_backoff", "must be at least the initial back-off and at most 24 hours")


def changes(before: MailingDefinition, after: MailingDefinition) -> frozenset[str]:
    """Return the fields in which the two differ."""
    return frozenset(name for name in MAILING_FIELDS if getattr(before, name) != getattr(after, name))


def fixed_since_start(definition: MailingDefinition) -> frozenset[str]:
    """Return the fields that are fixed once a mailing has begun, whatever its state.

    Messages were sent by them: an unknown outcome was promised one semantics, an endpoint
    recognizes only its own repeated requests, and a SNAPSHOT is taken once.
    """
    return _FIXED | {"filter"} if definition.audience_mode is AudienceMode.SNAPSHOT else _FIXED


def check_changeable(mailing: Mailing, changed: Collection[str], begun: bool) -> None:
    """Raise WrongState if one of the `changed` fields cannot change.

    `begun` means that the mailing ran before, even if it is SCHEDULED again. One that was paused before its start
    changes like a SCHEDULED one.
    """
    held = mailing.state is MailingState.PAUSED and not begun
    changeable = CHANGEABLE[MailingState.SCHEDULED if held else mailing.state]
    fixed = fixed_since_start(mailing.definition) if begun else frozenset()
    rejected = [name for name in MAILING_FIELDS if name in changed and (name not in changeable or name in fixed)]
    if not rejected:
        return
    if fixed.isdisjoint(rejected):
        needed = [state for state, fields in CHANGEABLE.items() if fields.issuperset(rejected)]
        raise WrongState(f"given another {' and '.join(rejected)}", mailing.state, needed)
    why = " (a SNAPSHOT audience is fixed at the start)" if "filter" in rejected else ""
    what = f"given another {' and '.join(rejected)} once it has begun{why}"
    raise WrongState(what, mailing.state, [MailingState.SCHEDULED], "and never have begun")


def amended_mailing(
    mailing: Mailing,
    patch: MailingDefinition,
    fields: Collection[str],
    now: datetime,
    begun: bool,
    zones: Collection[str] = (),
) -> MailingDefinition:
    """Return the mailing's definition with `fields`, and parts of fields, taken from `patch`.

    `begun` means that it ran before. Raise WrongState if that or its state does not allow the
    change, InvalidFields for an end that has passed at `now` or is not after the start, and where the
    parts make no valid field.
    """
    before = mailing.definition
    after = _with_one_start(merged(before, patch, fields, "mailing"), patch, fields)
    changed = changes(before, after)
    check_changeable(mailing, changed, begun)
    if "end_time" in changed and after.end_time and after.end_time <= now:
        raise ended_already()
    violations = Violations()
    check_mailing(after, zones, violations, fields_of_parts(fields))
    start = after.start_time or (None if after.local_start else now)
    check_order(replace(after, start_time=start), violations)
    violations.check()
    return after


def _with_one_start(after: MailingDefinition, patch: MailingDefinition, fields: Collection[str]) -> MailingDefinition:
    """Return the definition without the start that the one in the patch replaces."""
    if "local_start" in fields and patch.local_start:
        return replace(after, start_time=None)
    if "start_time" in fields and patch.start_time:
        return replace(after, local_start=None)
    return after


def requeueable(numbers: Sequence[int], path: str, violations: Violations) -> frozenset[Status]:
    """Return the statuses of these numbers; report those that cannot be retried, and an empty list."""
    choice = ", ".join(status.name for status in sorted(REQUEUEABLE))
    if not numbers:
        violations.add(path, f"is required: one or more of {choice}")
    for index, number in enumerate(numbers):
        if number not in REQUEUEABLE:
            violations.add(f"{path}[{index}]", f"must be one of {choice}")
    return REQUEUEABLE.intersection(numbers)


def ended_already() -> InvalidFields:
    """Return the error for an end that has passed."""
    return invalid("mailing.end_time", "has passed already")
