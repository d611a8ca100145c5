"""Entries of the event log: what they are, and which ones a settlement makes.

Pure. However many messages fail, one settlement makes a bounded number of entries: few failures
make one each, many make one together with their number. Successes make none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from dispatcher.endpoint_stats import error_of
from dispatcher.model.outcomes import Outcome, Settled, Settlement
from dispatcher.model.states import Reason, Status, Suspension

MOST_SINGLE = 20
"""So many failures of one settlement have an entry each."""

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
    mailing_id = settlement.batch.mailing_id
    attempts = _attempts(mailing_id, settlement.endpoint, settlement.failed)
    return [*attempts, *_endings(mailing_id, settlement.ended)]


def _attempts(mailing_id: int, endpoint: str, failed: Sequence[Settled]) -> Iterable[Event]:
    if len(failed) > MOST_SINGLE:
        kinds = Counter(error_of(outcome) for _, _, outcome in failed)
        text = f"{len(failed)} attempts failed: {_most_common(kinds)}."
        details = {"count": str(len(failed)), "endpoint": endpoint}
        return [Event(Level.WARNING, "attempts.failed", text, mailing_id, 0, details)]
    return [_attempt(mailing_id, endpoint, *one) for one in failed]


def _attempt(mailing_id: int, endpoint: str, client_id: int, before: int, outcome: Outcome) -> Event:
    assert outcome.failure is not None
    details = {
        "number": str(before + 1),
        "endpoint": endpoint,
        "error_class": outcome.failure.error_class.name,
        "endpoint_status": str(outcome.endpoint_status or ""),
        "endpoint_code": "" if outcome.endpoint_code is None else str(outcome.endpoint_code),
    }
    text = f"Attempt {before + 1} failed: {error_of(outcome)}."
    given = {name: value for name, value in details.items() if value}
    return Event(Level.WARNING, "attempt.failed", text, mailing_id, client_id, given)


def _endings(mailing_id: int, ended: Sequence[Settled]) -> Iterable[Event]:
    if len(ended) <= MOST_SINGLE:
        return [_ending(mailing_id, *one) for one in ended]
    statuses = Counter(outcome.status for _, _, outcome in ended)
    return [_endings_of(mailing_id, status, ended) for status in sorted(statuses)]


def _ending(mailing_id: int, client_id: int, before: int, outcome: Outcome) -> Event:
    status = outcome.status.name.lower()
    details = {"reason": Reason(outcome.reason).name, "attempts": str(before + outcome.attempted)}
    text = f"The message is {status}: {_why(outcome)}."
    return Event(_LEVELS[outcome.status], f"message.{status}", text, mailing_id, client_id, details)


def _endings_of(mailing_id: int, status: Status, ended: Sequence[Settled]) -> Event:
    kinds = Counter(_reason(outcome) for _, _, outcome in ended if outcome.status is status)
    count = kinds.total()
    text = f"{count} messages are {status.name.lower()}: {_most_common(kinds)}."
    return Event(_LEVELS[status], f"messages.{status.name.lower()}", text, mailing_id, 0, {"count": str(count)})


def _why(outcome: Outcome) -> str:
    """Return the reason; of a refused message what the endpoint answered."""
    refused = outcome.reason is Reason.REFUSED and outcome.failure is not None
    return error_of(outcome) if refused else _reason(outcome)


def _reason(outcome: Outcome) -> str:
    return Reason(outcome.reason).name.lower().replace("_", " ")


def _most_common(kinds: Counter[str]) -> str:
    named = [f"{count} {kind}" for kind, count in kinds.most_common(_MOST_KINDS)]
    return ", ".join(named) + (", …" if len(kinds) > _MOST_KINDS else "")


def started(mailing_id: int) -> Event:
    """Return the event of a mailing that runs from now on."""
    return Event(Level.INFO, "mailing.started", "The mailing was started.", mailing_id)


def expanded(mailing_id: int, messages: int) -> Event:
    """Return the event of a mailing whose whole audience has messages."""
    text = f"All who match have a message: {messages:,}."
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
