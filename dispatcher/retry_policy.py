"""The dispatcher's decisions, apart from its acts: pure functions of what is known.

Nothing here waits, asks a clock or touches the world; randomness comes in as an argument.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random

from dispatcher.model.batches import Recipient, Recipients
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

_FREE = frozenset({ErrorClass.THROTTLED, ErrorClass.CREDENTIALS})
"""Answers that do not count against the limit: the endpoint did not look at the message."""

_UNREACHED = frozenset(
    {
        ErrorClass.CONNECT,
        ErrorClass.RESOLVE,
        ErrorClass.TLS,
        ErrorClass.TIMEOUT,
        ErrorClass.DISCONNECT,
        ErrorClass.LOCAL,
    }
)
"""Ends of a request that never left for want of a connection; one that cannot be written is PROTOCOL."""

MOST_ATTEMPTS = 10_000
"""From so many attempts on each one counts: the database keeps their number in 16 bits."""

_UNKNOWN_WHEN_SENT = frozenset(
    {
        ErrorClass.TIMEOUT,
        ErrorClass.DISCONNECT,
        ErrorClass.PROTOCOL,
        ErrorClass.TOO_LARGE,
        ErrorClass.UNREADABLE,
    }
)


UNJUDGED = Outcome(Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, 1, None, None, None, None, None)
"""What is recorded of a message whose answer nobody here could judge, by a defect."""


def delivered(answer: Answer, provider_id: str = "") -> Outcome:
    """Return what to record of a message that the endpoint accepted, and that it gave this id."""
    outcome = _delivered(answer.status, round(answer.duration * 1000))
    return outcome._replace(provider_id=provider_id) if provider_id else outcome


@lru_cache(maxsize=4096)
def _delivered(status: int, duration_ms: int) -> Outcome:
    return Outcome(Status.DELIVERED, Reason.NONE, 1, status, None, duration_ms, None, None)


def failed(
    mailing: Mailing,
    recipient: Recipient,
    answer: Answer,
    verdict: Verdict,
    began_at: datetime,
    random: Random,
    excused: bool = False,
) -> Outcome:
    """Return what to record of a failed attempt.

    `began_at` is when the request began, by the database's clock; `excused` says that a refusal
    speaks of us, and not of the message. What would be tried again only
    after the mailing's end is EXPIRED at once.
    """
    uncounted = is_uncounted(mailing, recipient, answer, verdict, excused)
    if excused and uncounted:
        verdict = verdict._replace(retryable=True)
    tried = recipient.attempts - recipient.uncounted
    status, reason = _failed(mailing, tried, answer, verdict, uncounted)
    due_at = None
    if status is Status.PENDING:
        waits = recipient.attempts if uncounted else tried
        delay = retry_delay(mailing.retry, waits, verdict.retry_after, random)
        due_at = in_slot(began_at + timedelta(seconds=answer.duration + delay), retry_slot(mailing.retry, waits))
        if mailing.ends_at is not None and due_at >= mailing.ends_at:
            status, reason, due_at = Status.EXPIRED, Reason.MAILING_ENDED, None
    maybe_sent = answer.sent and verdict.error_class in _UNKNOWN_WHEN_SENT
    if status is Status.EXPIRED and (maybe_sent or recipient.maybe_sent):
        status, reason = Status.UNKNOWN, Reason.MAYBE_SENT
    failure = Failure(began_at, verdict.error_class, verdict.excerpt)
    duration = round(answer.duration * 1000)
    code = verdict.endpoint_code
    return Outcome(
        status, reason, 1, answer.status or None, code, duration, due_at, failure, int(uncounted), maybe_sent
    )


def is_uncounted(
    mailing: Mailing, recipient: Recipient, answer: Answer, verdict: Verdict, excused: bool = False
) -> bool:
    """Return whether a failed attempt does not count against the limit.

    Because it surely did not reach the endpoint, or because the endpoint asked for patience,
    refused our credentials, or refuses everything (`excused`). Nothing else is ever uncounted,
    whatever the breaker's state: what may have arrived must not be repeated more often than was
    asked for. That ends with the mailing or, where it has no end, when the message is overdue.
    """
    if not excused and verdict.error_class not in (_FREE if answer.sent else _UNREACHED):
        return False
    overdue = recipient.overdue and mailing.ends_at is None
    return not overdue and recipient.attempts < MOST_ATTEMPTS


def _failed(mailing: Mailing, tried: int, answer: Answer, verdict: Verdict, uncounted: bool) -> tuple[Status, Reason]:
    """Return the status and reason after a failed attempt and `tried` earlier ones that count."""
    if mailing.semantics is Semantics.AT_MOST_ONCE and answer.sent and verdict.error_class in _UNKNOWN_WHEN_SENT:
        return Status.UNKNOWN, Reason.OUTCOME_UNKNOWN
    if verdict.error_class is ErrorClass.OPTED_OUT:
        return Status.SKIPPED, Reason.OPTED_OUT
    if not verdict.retryable:
        return Status.FAILED, Reason.REFUSED
    if not uncounted and tried + 1 >= mailing.retry.max_attempts:
        return Status.FAILED, Reason.ATTEMPTS_EXHAUSTED
    return Status.PENDING, Reason.RETRYING


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


_EXPIRED = frozenset({Reason.MAILING_ENDED, Reason.WINDOW_NOT_BEFORE_END, Reason.HOURS_NOT_BEFORE_END, Reason.TOO_LATE})
"""Why a message cannot leave any more, by the timetable of its mailing."""


def are_all_sent(mailing: Mailing, recipients: Recipients, reclaimed: bool, now_at: datetime) -> bool:
    """Return whether `without_sending` is None for every message of a batch, which it usually is."""
    if mailing.state is MailingState.CANCELLED or (reclaimed and mailing.semantics is Semantics.AT_MOST_ONCE):
        return False
    if mailing.ends_at is not None and now_at >= mailing.ends_at:
        return False
    return None not in recipients.phones and not any(recipients.skip_reasons) and not any(recipients.opens_at)


def without_sending(mailing: Mailing, recipient: Recipient, reclaimed: bool, now_at: datetime) -> Outcome | None:
    """Return what to record of a message that is not to be sent now; None when it is.

    `now_at` is the time by the database's clock; `reclaimed` says that an earlier lease of the
    batch ran out, so that AT_MOST_ONCE forbids another request. Of what may have been sent nothing
    says that it was not.
    """
    if reclaimed and mailing.semantics is Semantics.AT_MOST_ONCE:
        return unsent(Status.UNKNOWN, Reason.LEASE_LOST)
    outcome = _without_sending(mailing, recipient, now_at)
    if outcome is not None and outcome.status is not Status.PENDING and recipient.maybe_sent:
        return unsent(Status.UNKNOWN, Reason.MAYBE_SENT)
    return outcome


def _without_sending(mailing: Mailing, recipient: Recipient, now_at: datetime) -> Outcome | None:
    """Return the same for a message that was surely not sent before."""
    if mailing.state is MailingState.CANCELLED:
        return unsent(Status.CANCELLED, Reason.MAILING_CANCELLED)
    if recipient.phone is None:
        return unsent(Status.CANCELLED, Reason.CLIENT_DELETED)
    if mailing.ends_at is not None and now_at >= mailing.ends_at:
        return unsent(Status.EXPIRED, Reason.DAILY_LIMIT if mailing.day_full else Reason.MAILING_ENDED)
    if recipient.skip_reason:
        reason = Reason(recipient.skip_reason)
        return unsent(Status.EXPIRED if reason in _EXPIRED else Status.SKIPPED, reason)
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


def excused(mailing: Mailing, recipient: Recipient, outcome: Outcome) -> Outcome:
    """Return a refusal's outcome as it is when it turns out to speak of us: due again, at no cost."""
    overdue = recipient.overdue and mailing.ends_at is None
    if outcome.failure is None or overdue or recipient.attempts >= MOST_ATTEMPTS:
        return outcome
    wait = timedelta(seconds=backoff(mailing.retry, recipient.attempts))
    due_at = in_slot(outcome.failure.at + wait, retry_slot(mailing.retry, recipient.attempts))
    if mailing.ends_at is not None and due_at >= mailing.ends_at:
        return outcome._replace(status=Status.EXPIRED, reason=Reason.MAILING_ENDED, uncounted=1)
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
