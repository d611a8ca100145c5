"""Entries of the event log: what they are, and which ones a settlement makes.

Pure. However many messages fail, one settlement makes a bounded number of entries: few failures
make one each, many make one together with their number. Successes make none, and the attempt that
ends a message makes none beside its message's: that one has what is known of the attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from dispatcher.endpoint_stats import error_of
from dispatcher.model.outcomes import Outcome, Settled, Settlement
from dispatcher.model.states import Reason, Status, Suspension
from dispatcher.model.words import REASON_WORDS

MOST_SINGLE = 20
"""So many failures of one settlement have an entry each."""

ANSWER = "answer"
MOST_ANSWER = 200
"""The detail that has the gateway's own words, and how many characters of them. They are for callers who may read
attempts, and for no log of a process: nobody knows what they hold."""

_MOST_KINDS = 5


class Level(IntEnum):
    """How much an entry matters."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


class Event(NamedTuple):
    """One entry to be written. `event` is of the list in docs/observability.md; 0 in an id: about none."""

    level: Level
    event: str
    text: str
    mailing_id: int = 0
    client_id: int = 0
    details: Mapping[str, str] = {}


_LEVELS = {
    Status.FAILED: Level.ERROR,
    Status.UNKNOWN: Level.ERROR,
    Status.EXPIRED: Level.WARNING,
    Status.CANCELLED: Level.INFO,
    Status.SKIPPED: Level.INFO,
}
"""Of messages that ended without being delivered."""


def of_settlement(settlement: Settlement) -> list[Event]:
    """Return the events of what is recorded: failed attempts, and messages that ended undelivered."""
    mailing_id, endpoint = settlement.batch.mailing_id, settlement.endpoint
    ended = {client_id for client_id, _, _ in settlement.ended}
    repeated = [one for one in settlement.failed if one[0] not in ended]
    return [*_attempts(mailing_id, endpoint, repeated), *_endings(mailing_id, endpoint, settlement.ended)]


def _attempts(mailing_id: int, endpoint: str, failed: Sequence[Settled]) -> Iterable[Event]:
    if len(failed) > MOST_SINGLE:
        kinds = Counter(error_of(outcome) for _, _, outcome in failed)
        text = f"{len(failed)} attempts failed: {_most_common(kinds)}."
        details = {"count": str(len(failed)), "endpoint": endpoint}
        return [Event(Level.WARNING, "attempts.failed", text, mailing_id, 0, details)]
    return [_attempt(mailing_id, endpoint, *one) for one in failed]


def _attempt(mailing_id: int, endpoint: str, client_id: int, before: int, outcome: Outcome) -> Event:
    details = {"number": str(before + 1), **_facts(endpoint, outcome)}
    text = f"Attempt {before + 1} failed: {error_of(outcome)}."
    return Event(Level.WARNING, "attempt.failed", text, mailing_id, client_id, details)


def _facts(endpoint: str, outcome: Outcome) -> dict[str, str]:
    """Return what is known of a failed attempt; nothing of a message that ended without one."""
    if outcome.failure is None:
        return {}
    details = {
        "endpoint": endpoint,
        "error_class": outcome.failure.error_class.name,
        "endpoint_status": str(outcome.endpoint_status or ""),
        "endpoint_code": "" if outcome.endpoint_code is None else str(outcome.endpoint_code),
        ANSWER: outcome.failure.excerpt[:MOST_ANSWER],
    }
    return {name: value for name, value in details.items() if value}


def _endings(mailing_id: int, endpoint: str, ended: Sequence[Settled]) -> Iterable[Event]:
    if len(ended) <= MOST_SINGLE:
        return [_ending(mailing_id, endpoint, *one) for one in ended]
    statuses = Counter(outcome.status for _, _, outcome in ended)
    return [_endings_of(mailing_id, status, ended) for status in sorted(statuses)]


def _ending(mailing_id: int, endpoint: str, client_id: int, before: int, outcome: Outcome) -> Event:
    status = outcome.status.name.lower()
    details = {"reason": Reason(outcome.reason).name, "attempts": str(before + outcome.attempted)}
    details |= _facts(endpoint, outcome)
    text = f"Message {status}: {_why(outcome)}."
    return Event(_LEVELS[outcome.status], f"message.{status}", text, mailing_id, client_id, details)


def _endings_of(mailing_id: int, status: Status, ended: Sequence[Settled]) -> Event:
    kinds = Counter(_why(outcome) for _, _, outcome in ended if outcome.status is status)
    count = kinds.total()
    text = f"{count} messages {status.name.lower()}: {_most_common(kinds)}."
    return Event(_LEVELS[status], f"messages.{status.name.lower()}", text, mailing_id, 0, {"count": str(count)})


def _why(outcome: Outcome) -> str:
    """Return the reason, and how the last attempt failed."""
    reason = REASON_WORDS[Reason(outcome.reason).name] if outcome.reason else ""
    if outcome.failure is None:
        return reason
    error = error_of(outcome)
    return f"{reason}, the last: {error}" if outcome.reason is Reason.ATTEMPTS_EXHAUSTED else error


def _most_common(kinds: Counter[str]) -> str:
    named = [f"{count} {kind}" for kind, count in kinds.most_common(_MOST_KINDS)]
    return ", ".join(named) + (", …" if len(kinds) > _MOST_KINDS else "")


def started(mailing_id: int) -> Event:
    """Return the event of a mailing that runs from now on."""
    return Event(Level.INFO, "mailing.started", "The mailing was started.", mailing_id)


def expanded(mailing_id: int, messages: int) -> Event:
    """Return the event of a mailing whose whole audience has messages."""
    text = f"Audience recorded, messages: {messages:,}."
    return Event(Level.INFO, "mailing.expanded", text, mailing_id, details={"messages": str(messages)})


def completed(mailing_id: int, counts: Mapping[Status, int]) -> Event:
    """Return the event of a mailing that is over, with its messages by status."""
    named = {status.name.lower(): count for status, count in counts.items()}
    ends = ", ".join(f"{count:,} {name}" for name, count in named.items()) or "nobody matched"
    details = {name: str(count) for name, count in named.items()}
    return Event(Level.INFO, "mailing.completed", f"The mailing is completed: {ends}.", mailing_id, details=details)


def breaker_opened(endpoint: str, error: str, suspension: Suspension = Suspension.NONE) -> Event:
    """Return the event of an endpoint that is down for all replicas, or suspended for what it answers."""
    reason = suspension.name.lower() if suspension else ""
    how = f"suspended ({reason})" if suspension else "down"
    text = f"The endpoint {endpoint} is {how}, nothing is sent there: {error}"
    details = {"endpoint": endpoint, "error": error} | ({"reason": reason} if suspension else {})
    return Event(Level.ERROR, "breaker.opened", text, details=details)


def breaker_closed(endpoint: str) -> Event:
    """Return the event of an endpoint that answers again."""
    text = f"The endpoint {endpoint} answers again."
    return Event(Level.INFO, "breaker.closed", text, details={"endpoint": endpoint})
