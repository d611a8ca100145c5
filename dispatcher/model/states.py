"""The words of the dispatcher: states, statuses, reasons, and how they may follow one another.

A leaf: it imports nothing of the project. The numbers are those of the mailing.v1 protos
and of the database; one test holds the three together. `STATUS_TRANSITIONS` and
`STATE_TRANSITIONS` are the whole life of a message and of a mailing.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Where a message is in its life. All but PENDING are terminal."""

    PENDING = 1
    DELIVERED = 2
    FAILED = 3
    EXPIRED = 4
    CANCELLED = 5
    SKIPPED = 6
    UNKNOWN = 7


class Reason(IntEnum):
    """Why a message has the status it has."""

    NONE = 0
    REFUSED = 1
    ATTEMPTS_EXHAUSTED = 2
    RETRYING = 3
    MAILING_ENDED = 4
    WINDOW_NOT_BEFORE_END = 5
    CLIENT_DELETED = 6
    MAILING_CANCELLED = 7
    OPTED_OUT = 8
    NO_LONGER_MATCHES = 9
    FREQUENCY_CAP = 10
    OUTCOME_UNKNOWN = 11
    LEASE_LOST = 12
    NO_ADDRESS = 13
    EMPTY_TEXT = 14
    TOO_LONG = 15
    TOO_LATE = 16
    MAYBE_SENT = 17
    HOURS_NOT_BEFORE_END = 18
    DAILY_LIMIT = 19


class MailingState(IntEnum):
    """Where a mailing is in its life."""

    SCHEDULED = 1
    RUNNING = 2
    PAUSED = 3
    COMPLETED = 4
    CANCELLED = 5


class AudienceMode(IntEnum):
    """Whether clients that begin to match while a mailing runs are taken in."""

    OPEN = 1
    SNAPSHOT = 2


class Semantics(IntEnum):
    """What happens to a message whose outcome is not known."""

    AT_LEAST_ONCE = 1
    AT_MOST_ONCE = 2


class BreakerState(IntEnum):
    """Whether messages are let through to an endpoint."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class Suspension(IntEnum):
    """Why an endpoint is suspended: what its answers say about us, and not about the messages."""

    NONE = 0
    CREDENTIALS = 1
    NOT_FOUND = 2
    REFUSES_ALL = 3
    THROTTLED = 4


class ErrorClass(IntEnum):
    """How a request to the endpoint ended. Every end has exactly one class."""

    NONE = 0
    CONNECT = 1
    RESOLVE = 2
    TLS = 3
    TIMEOUT = 4
    DISCONNECT = 5
    PROTOCOL = 6
    TOO_LARGE = 7
    THROTTLED = 8
    SERVER = 9
    REDIRECT = 10
    REFUSED = 11
    REJECTED = 12
    UNREADABLE = 13
    CREDENTIALS = 14
    OPTED_OUT = 15
    TRANSIENT = 16
    LOCAL = 17


STATUS_TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset(Status) - {Status.PENDING},
    Status.DELIVERED: frozenset(),
    Status.FAILED: frozenset({Status.PENDING}),
    Status.EXPIRED: frozenset({Status.PENDING}),
    Status.CANCELLED: frozenset(),
    Status.SKIPPED: frozenset(),
    Status.UNKNOWN: frozenset({Status.PENDING}),
}
"""From each status, those that may follow. Back to PENDING leads RetryMailing alone."""


STATE_TRANSITIONS: dict[MailingState, frozenset[MailingState]] = {
    MailingState.SCHEDULED: frozenset({MailingState.RUNNING, MailingState.PAUSED, MailingState.CANCELLED}),
    MailingState.RUNNING: frozenset(
        {MailingState.SCHEDULED, MailingState.PAUSED, MailingState.COMPLETED, MailingState.CANCELLED}
    ),
    MailingState.PAUSED: frozenset(
        {MailingState.SCHEDULED, MailingState.RUNNING, MailingState.COMPLETED, MailingState.CANCELLED}
    ),
    MailingState.COMPLETED: frozenset({MailingState.RUNNING}),
    MailingState.CANCELLED: frozenset(),
}
"""From each state, those that may follow. Back from COMPLETED leads RetryMailing alone, back to
SCHEDULED an update that moves the start of a running mailing into the future, and resuming a mailing that
was paused before its start."""
