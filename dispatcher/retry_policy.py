"""The dispatcher's decisions, apart from its acts: pure functions of what is known.

Nothing here waits, asks a clock or touches the world; randomness comes in as an argument.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random

from dispatcher.model.batches import Recipient
from dispatcher.model.endpoints import Answer
from dispatcher.model.mailings import Mailing, RetryPolicy
from dispatcher.model.outcomes import Failure, Outcome
from dispatcher.model.states import ErrorClass, MailingState, Reason, Semantics, Status
from dispatcher.verdict import Verdict

AT_MOST_ONCE_BATCH = 50
"""Messages per batch under AT_MOST_ONCE: what a lost lease makes UNKNOWN."""

EXPAND_FIRST, EXPAND_TARGET, EXPAND_MOST = 1000, 5000, 50_000
"""Clients read in the first step of an expansion, messages aimed at per step, and the most
clients read in one."""

RATED_BATCH_SECONDS = 2.0
"""How long a batch of a mailing with a rate takes to send, in seconds, at the full rate."""

OPEN_BATCHES = 48
"""Expansion of a mailing stops while so many of its batches are due and not settled."""

DOWN = frozenset(
    {
        ErrorClass.CONNECT,
        ErrorClass.RESOLVE,
        ErrorClass.TLS,
        ErrorClass.TIMEOUT,
        ErrorClass.DISCONNECT,
        ErrorClass.PROTOCOL,
        ErrorClass.TOO_LARGE,
        ErrorClass.SERVER,
        ErrorClass.UNREADABLE,
    }
)
"""Ends of a request that say something about the endpoint, not about the message."""

_UNKNOWN_WHEN_SENT = frozenset(
    {
        ErrorClass.TIMEOUT,
        ErrorClass.DISCONNECT,
        ErrorClass.PROTOCOL,
        ErrorClass.TOO_LARGE,
        ErrorClass.UNREADABLE,
    }
)


def delivered(answer: Answer) -> Outcome:
    """Return what to record of a message that the endpoint accepted."""
    return _delivered(answer.status, round(answer.duration * 1000))


@lru_cache(maxsize=4096)
def _delivered(status: int, duration_ms: int) -> Outcome:
    return Outcome(Status.DELIVERED, Reason.NONE, 1, status, None, duration_ms, None, None)


def failed(
    mailing: Mailing,
    recipient: Recipient,
    answer: Answer,
    verdict: Verdict,
    began_at: datetime,
    uncounted: bool,
    random: Random,
) -> Outcome:
    """Return what to record of a failed attempt.

    `began_at` is when the request began, by the database's clock; `uncounted` says that it does
    not count against the limit, because the endpoint is down. What would be tried again only
    after the mailing's end is EXPIRED at once.
    """
    tried = recipient.attempts - recipient.uncounted
    status, reason, delay = _failed(mailing, tried - uncounted, answer, verdict, random)
    due_at = None
    if delay is not None:
        due_at = in_slot(began_at + timedelta(seconds=answer.duration + delay), retry_slot(mailing.retry, tried))
        if mailing.ends_at is not None and due_at >= mailing.ends_at:
            status, reason, due_at = Status.EXPIRED, Reason.MAILING_ENDED, None
    failure = Failure(began_at, verdict.error_class, verdict.excerpt)
    duration = round(answer.duration * 1000)
    return Outcome(
        status, reason, 1, answer.status or None, verdict.endpoint_code, duration, due_at, failure, int(uncounted)
    )


def _failed(
    mailing: Mailing, tried: int, answer: Answer, verdict: Verdict, random: Random
) -> tuple[Status, Reason, float | None]:
    """Return the status and reason of a failed attempt after `tried` that count and, if it is repeated, the delay."""
    if mailing.semantics is Semantics.AT_MOST_ONCE and answer.sent and verdict.error_class in _UNKNOWN_WHEN_SENT:
        return Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, None
    if not verdict.retryable:
        return Status.FAILED, Reason.REFUSED, None
    if tried + 1 >= mailing.retry.max_attempts:
        return Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, None
    return Status.PENDING, Reason.RETRYING, retry_delay(mailing.retry, max(tried, 0), verdict.retry_after, random)


def backoff(retry: RetryPolicy, attempts: int) -> float:
    """Return the longest wait after `attempts` earlier attempts, in seconds: it doubles up to the maximum."""
    return min(retry.max_backoff, retry.initial_backoff * 2.0 ** min(attempts, 40))


def retry_delay(retry: RetryPolicy, attempts: int, retry_after: float | None, random: Random) -> float:
    """Return the seconds to wait before the next attempt, after `attempts` earlier ones.

    Full jitter: a random share of the back-off (AWS Architecture Blog, "Exponential Backoff
    And Jitter"). A Retry-After raises it up to the maximal back-off.
    """
    return max(random.random() * backoff(retry, attempts), min(retry_after or 0.0, retry.max_backoff))


def retry_slot(retry: RetryPolicy, attempts: int) -> float:
    """Return the seconds between two moments at which retries fall due: an eighth of the back-off.

    Messages that fail together then need a handful of new batches, not one each.
    """
    return backoff(retry, attempts) / 8


def in_slot(moment: datetime, slot: float) -> datetime:
    """Return the first multiple of `slot` seconds since the epoch at or after `moment`."""
    return datetime.fromtimestamp(math.ceil(moment.timestamp() / slot) * slot, UTC)


def without_sending(mailing: Mailing, recipient: Recipient, reclaimed: bool, now_at: datetime) -> Outcome | None:
    """Return what to record of a message that is not to be sent now; None when it is.

    `now_at` is the time by the database's clock; `reclaimed` says that an earlier lease of the
    batch ran out, so that under AT_MOST_ONCE the message may have been sent already.
    """
    if reclaimed and mailing.semantics is Semantics.AT_MOST_ONCE:
        return unsent(Status.UNKNOWN, Reason.LEASE_LOST)
    if mailing.state is MailingState.CANCELLED:
        return unsent(Status.CANCELLED, Reason.MAILING_CANCELLED)
    if recipient.phone is None:
        return unsent(Status.CANCELLED, Reason.CLIENT_DELETED)
    if mailing.ends_at is not None and now_at >= mailing.ends_at:
        return unsent(Status.EXPIRED, Reason.MAILING_ENDED)
    if recipient.skip_reason:
        return unsent(Status.SKIPPED, Reason(recipient.skip_reason))
    if recipient.opens_at is None:
        return None
    if mailing.ends_at is not None and recipient.opens_at >= mailing.ends_at:
        # Without a window it is its next attempt that comes too late.
        windowed = recipient.closes_in is not None
        return unsent(Status.EXPIRED, Reason.WINDOW_NOT_BEFORE_END if windowed else Reason.MAILING_ENDED)
    return put_off(recipient.opens_at)


def unsent(status: Status, reason: Reason) -> Outcome:
    """Return the terminal outcome of a message for which no request was made."""
    return Outcome(status, reason, 0, None, None, None, None, None)


def put_off(due_at: datetime) -> Outcome:
    """Return the outcome of a message that goes into a new batch without an attempt."""
    return Outcome(Status.PENDING, Reason.NONE, 0, None, None, None, due_at, None)


def uncounted(mailing: Mailing, outcome: Outcome) -> Outcome:
    """Return a failed attempt's outcome as it is when the attempt does not count against the limit.

    One that had no other attempt left has it again, after the shortest back-off.
    """
    if outcome.failure is None or outcome.status is Status.UNKNOWN:
        return outcome
    due_at = outcome.due_at
    if outcome.reason is Reason.ATTEMPTS_EXHAUSTED:
        due_at = in_slot(
            outcome.failure.at + timedelta(seconds=mailing.retry.initial_backoff), retry_slot(mailing.retry, 0)
        )
    if due_at is None:
        return outcome
    return outcome._replace(status=Status.PENDING, reason=Reason.RETRYING, due_at=due_at, uncounted=1)


def batch_size(semantics: Semantics, max_rate: float, most: int) -> int:
    """Return how many messages a batch of such a mailing may hold, at most `most`.

    One with a `max_rate` (a second, 0 for none) holds what goes in a few seconds: a lease must
    not end, nor a replica have it all, before most of it is sent.
    """
    if max_rate > 0:
        most = max(1, min(most, round(max_rate * RATED_BATCH_SECONDS)))
    return min(most, AT_MOST_ONCE_BATCH) if semantics is Semantics.AT_MOST_ONCE else most


def next_step(limit: int, seen: int, inserted: int) -> int:
    """Return how many clients the next step of an expansion reads.

    Aims at EXPAND_TARGET new messages per step, so that a step stays short whatever share
    of the clients matches; grows fourfold at the most.
    """
    wanted = EXPAND_TARGET * seen // max(inserted, 1) if seen else limit
    return max(EXPAND_FIRST, min(wanted, limit * 4, EXPAND_MOST))


def idle_wait(next_in: float | None, patience: float, poll_min: float, poll_max: float) -> float:
    """Return the seconds to wait before the next poll of the database.

    The time to the next due thing or the `patience` gained so far, whichever is shorter,
    within the bounds.
    """
    wait = patience if next_in is None else min(next_in, patience)
    return max(poll_min, min(wait, poll_max))
