"""The dispatcher's decisions, apart from its acts: pure functions of what is known.

Nothing here waits, asks a clock or touches the world; randomness comes in as an argument.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from random import Random

from dispatcher.model import (
    Answer,
    ErrorClass,
    Failure,
    Mailing,
    MailingState,
    Outcome,
    Reason,
    Recipient,
    RetryPolicy,
    Semantics,
    Status,
)
from dispatcher.protocol import Verdict

AT_MOST_ONCE_BATCH = 50
"""Messages per batch under AT_MOST_ONCE: what a lost lease makes UNKNOWN."""

EXPAND_FIRST, EXPAND_TARGET, EXPAND_MOST = 1000, 5000, 50_000
"""Clients looked at in the first step of an expansion, messages aimed at per step, and the
most clients looked at in one."""

OPEN_BATCHES = 48
"""Expansion of a mailing stops while so many of its batches are due and not settled."""

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
    """Returns what to record of a message that the endpoint accepted."""
    return Outcome(Status.DELIVERED, Reason.NONE, 1, answer.status, None, round(answer.duration * 1000), None, None)


def failed(
    mailing: Mailing, attempts: int, answer: Answer, verdict: Verdict, began_at: datetime, random: Random
) -> Outcome:
    """Returns what to record of a failed attempt; `attempts` were made before it.

    `began_at` is when the request began, by the database's clock.
    """
    status, reason, delay = _failed(mailing, attempts, answer, verdict, random)
    due_at = None
    if delay is not None:
        due_at = in_slot(began_at + timedelta(seconds=answer.duration + delay), retry_slot(mailing.retry, attempts))
    failure = Failure(began_at, verdict.error_class, verdict.excerpt)
    duration = round(answer.duration * 1000)
    return Outcome(status, reason, 1, answer.status or None, verdict.endpoint_code, duration, due_at, failure)


def _failed(
    mailing: Mailing, attempts: int, answer: Answer, verdict: Verdict, random: Random
) -> tuple[Status, Reason, float | None]:
    """The status and reason of a failed attempt and, when it is tried again, the delay in seconds."""
    if mailing.semantics is Semantics.AT_MOST_ONCE and answer.sent and verdict.error_class in _UNKNOWN_WHEN_SENT:
        return Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, None
    if not verdict.retryable:
        return Status.FAILED, Reason.REFUSED, None
    if attempts + 1 >= mailing.retry.max_attempts:
        return Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, None
    return Status.PENDING, Reason.RETRYING, retry_delay(mailing.retry, attempts, verdict.retry_after, random)


def backoff(retry: RetryPolicy, attempts: int) -> float:
    """Returns the longest wait after `attempts` earlier attempts, in seconds: it doubles up to the maximum."""
    return min(retry.max_backoff, retry.initial_backoff * 2.0 ** min(attempts, 40))


def retry_delay(retry: RetryPolicy, attempts: int, retry_after: float | None, random: Random) -> float:
    """Returns the seconds to wait before the next attempt, after `attempts` earlier ones.

    Full jitter: a random share of the back-off (AWS Architecture Blog, "Exponential Backoff
    And Jitter"). A Retry-After raises it up to the maximal back-off.
    """
    return max(random.random() * backoff(retry, attempts), min(retry_after or 0.0, retry.max_backoff))


def retry_slot(retry: RetryPolicy, attempts: int) -> float:
    """Returns the seconds between two moments at which retries fall due: an eighth of the back-off.

    Messages that fail together then need a handful of new batches, not one each.
    """
    return backoff(retry, attempts) / 8


def in_slot(moment: datetime, slot: float) -> datetime:
    """Returns the first multiple of `slot` seconds since the epoch at or after `moment`."""
    return datetime.fromtimestamp(math.ceil(moment.timestamp() / slot) * slot, UTC)


def without_sending(mailing: Mailing, recipient: Recipient, retaken: bool, now_at: datetime) -> Outcome | None:
    """Returns what to record of a message that is not to be sent now; None when it is.

    `now_at` is the time by the database's clock; `retaken` says that an earlier lease of the
    batch ran out, so that under AT_MOST_ONCE the message may have been sent already.
    """
    if retaken and mailing.semantics is Semantics.AT_MOST_ONCE:
        return unsent(Status.UNKNOWN, Reason.LEASE_LOST)
    if mailing.state is MailingState.CANCELLED:
        return unsent(Status.CANCELLED, Reason.MAILING_CANCELLED)
    if recipient.phone is None:
        return unsent(Status.CANCELLED, Reason.CLIENT_DELETED)
    if mailing.ends_at is not None and now_at >= mailing.ends_at:
        return unsent(Status.EXPIRED, Reason.MAILING_ENDED)
    if recipient.opted_out:
        return unsent(Status.SKIPPED, Reason.OPTED_OUT)
    if recipient.opens_at is None:
        return None
    if mailing.ends_at is not None and recipient.opens_at >= mailing.ends_at:
        return unsent(Status.EXPIRED, Reason.WINDOW_NOT_BEFORE_END)
    return put_off(recipient.opens_at)


def unsent(status: Status, reason: Reason) -> Outcome:
    """Returns the terminal outcome of a message for which no request was made."""
    return Outcome(status, reason, 0, None, None, None, None, None)


def put_off(due_at: datetime) -> Outcome:
    """Returns the outcome of a message that goes into a new batch without an attempt."""
    return Outcome(Status.PENDING, Reason.NONE, 0, None, None, None, due_at, None)


def bare(outcome: Outcome) -> Outcome:
    """Returns the outcome without anything that the endpoint had a say in."""
    return outcome._replace(endpoint_status=None, endpoint_code=None, failure=None)


def batch_size(semantics: Semantics, most: int) -> int:
    """Returns how many messages a batch of such a mailing may hold, at most `most`."""
    return min(most, AT_MOST_ONCE_BATCH) if semantics is Semantics.AT_MOST_ONCE else most


def next_step(limit: int, seen: int, inserted: int) -> int:
    """Returns how many clients the next step of an expansion looks at.

    Aims at EXPAND_TARGET new messages per step, so that a step stays short whatever share
    of the clients matches; grows fourfold at the most.
    """
    wanted = EXPAND_TARGET * seen // max(inserted, 1) if seen else limit
    return max(EXPAND_FIRST, min(wanted, limit * 4, EXPAND_MOST))


def idle_wait(next_in: float | None, patience: float, poll_min: float, poll_max: float) -> float:
    """Returns the seconds to wait before the next look at the database.

    The time to the next due thing or the `patience` gained so far, whichever is shorter,
    within the bounds.
    """
    wait = patience if next_in is None else min(next_in, patience)
    return max(poll_min, min(wait, poll_max))
