"""Entries of the log, for people: what they are, and which ones outcomes make.

Pure. However many messages fail, one settle makes a bounded number of entries: few failures
are told one by one, many as one entry with their number. Successes make none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from dispatcher.endpoint_stats import error_words
from dispatcher.model.records import Outcome
from dispatcher.model.states import Reason, Status
from dispatcher.ports import Settled

MOST_SINGLE = 20
"""So many failures of one settle are told one by one."""

_MOST_KINDS = 5
_CALM = (Status.PENDING, Status.DELIVERED)


class Level(IntEnum):
    """How much an entry matters."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


class Event(NamedTuple):
    """One entry to be written. `event` is of the list in docs/log.md; 0 in an id: about none."""

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


def of_outcomes(mailing_id: int, endpoint: str, settled: Sequence[Settled]) -> list[Event]:
    """Return what is to be told of outcomes: failed attempts, and messages that ended undelivered."""
    # The usual batch is looked through once, quickly.
    if [outcome.status for _, _, outcome in settled].count(Status.DELIVERED) == len(settled):
        return []
    failed = [one for one in settled if one[2].failure is not None]
    ended = [one for one in settled if one[2].status not in _CALM]
    return [*_attempts(mailing_id, endpoint, failed), *_endings(mailing_id, ended)]


def _attempts(mailing_id: int, endpoint: str, failed: Sequence[Settled]) -> Iterable[Event]:
    if len(failed) > MOST_SINGLE:
        kinds = Counter(_words(outcome) for _, _, outcome in failed)
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
    text = f"Attempt {before + 1} failed: {_words(outcome)}."
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
    text = f"The message is {status}: {_reason(outcome)}."
    return Event(_LEVELS[outcome.status], f"message.{status}", text, mailing_id, client_id, details)


def _endings_of(mailing_id: int, status: Status, ended: Sequence[Settled]) -> Event:
    kinds = Counter(_reason(outcome) for _, _, outcome in ended if outcome.status is status)
    count = kinds.total()
    text = f"{count} messages are {status.name.lower()}: {_most_common(kinds)}."
    return Event(_LEVELS[status], f"messages.{status.name.lower()}", text, mailing_id, 0, {"count": str(count)})


def _words(outcome: Outcome) -> str:
    assert outcome.failure is not None
    return error_words(outcome.failure.error_class, outcome.endpoint_status, outcome.endpoint_code)


def _reason(outcome: Outcome) -> str:
    return Reason(outcome.reason).name.lower().replace("_", " ")


def _most_common(kinds: Counter[str]) -> str:
    told = [f"{count} {kind}" for kind, count in kinds.most_common(_MOST_KINDS)]
    return ", ".join(told) + (", …" if len(kinds) > _MOST_KINDS else "")


def started(mailing_id: int) -> Event:
    """Return what is told of a mailing that runs from now on."""
    return Event(Level.INFO, "mailing.started", "The mailing was started.", mailing_id)


def expanded(mailing_id: int, messages: int) -> Event:
    """Return what is told of a mailing whose whole audience has messages."""
    text = f"All who match have a message: {messages:,}."
    return Event(Level.INFO, "mailing.expanded", text, mailing_id, details={"messages": str(messages)})


def completed(mailing_id: int, counts: Mapping[Status, int]) -> Event:
    """Return what is told of a mailing that is over, with its messages by status."""
    named = {status.name.lower(): count for status, count in counts.items()}
    told = ", ".join(f"{count:,} {name}" for name, count in named.items()) or "nobody matched"
    details = {name: str(count) for name, count in named.items()}
    return Event(Level.INFO, "mailing.completed", f"The mailing is completed: {told}.", mailing_id, details=details)


def breaker_opened(endpoint: str, error: str) -> Event:
    """Return what is told of an endpoint that is down for all replicas."""
    text = f"The endpoint {endpoint} is down, nothing is sent there: {error}"
    return Event(Level.ERROR, "breaker.opened", text, details={"endpoint": endpoint, "error": error})


def breaker_closed(endpoint: str) -> Event:
    """Return what is told of an endpoint that answers again."""
    text = f"The endpoint {endpoint} answers again."
    return Event(Level.INFO, "breaker.closed", text, details={"endpoint": endpoint})
