"""The dispatcher's decisions, one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from dispatcher import retry_policy as policy
from dispatcher.model.batches import Recipient, Recipients
from dispatcher.model.endpoints import Answer
from dispatcher.model.mailings import Mailing, RetryPolicy
from dispatcher.model.outcomes import Outcome
from dispatcher.model.states import ErrorClass, MailingState, Reason, Semantics, Status
from dispatcher.verdict import judge

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def mailing(
    state: MailingState = MailingState.RUNNING,
    semantics: Semantics = Semantics.AT_LEAST_ONCE,
    ends_at: datetime | None = None,
    retry: RetryPolicy | None = None,
) -> Mailing:
    return Mailing(1, 1, state, "Hello", "", semantics, 0, ends_at, retry or RetryPolicy(3, 1.0, 8.0))


def recipient(
    phone: str | None = "79",
    skip_reason: Reason = Reason.NONE,
    opens_at: datetime | None = None,
    closes_in: float | None = None,
    attempts: int = 0,
    uncounted: int = 0,
    maybe_sent: bool = False,
    overdue: bool = False,
) -> Recipient:
    return Recipient(16, attempts, uncounted, maybe_sent, phone, skip_reason, opens_at, closes_in, overdue, "Hello")


def outcome(
    answer: Answer, attempts: int = 0, seed: int = 1, uncounted: int = 0, overdue: bool = False, **of: object
) -> Outcome:
    to = recipient(attempts=attempts, uncounted=uncounted, overdue=overdue)
    return policy.failed(mailing(**of), to, answer, judge(answer), NOW, Random(seed))  # type: ignore[arg-type]


def answered(status: int, body: bytes = b"", retry_after: str | None = None) -> Answer:
    return Answer(status, body, retry_after, ErrorClass.NONE, True, 0.25)


def broken(error: ErrorClass, sent: bool = True) -> Answer:
    return Answer(0, b"", None, error, sent, 0.25)


def test_a_delivery_is_recorded_with_its_status_and_duration() -> None:
    found = policy.delivered(answered(201))
    assert (found.status, found.attempted, found.endpoint_status, found.duration_ms) == (Status.DELIVERED, 1, 201, 250)
    assert found.due_at is None
    assert found.failure is None


def test_a_failure_that_may_pass_is_due_again_after_a_jittered_backoff() -> None:
    found = outcome(answered(500, b"oops"))
    assert (found.status, found.reason) == (Status.PENDING, Reason.RETRYING)
    assert found.due_at is not None
    assert NOW < found.due_at <= NOW + timedelta(seconds=1.25 + 0.125)
    assert found.failure is not None
    assert (found.failure.error_class, found.failure.excerpt) == (ErrorClass.SERVER, "oops")


def test_the_last_allowed_attempt_fails_for_good() -> None:
    assert outcome(answered(500), attempts=1).status is Status.PENDING
    last = outcome(answered(500), attempts=2)
    assert (last.status, last.reason, last.due_at) == (Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, None)


@pytest.mark.parametrize("answer", [answered(404), answered(302), answered(200, b'{"code": 3}')])
def test_a_final_answer_fails_at_once(answer: Answer) -> None:
    found = outcome(answer)
    assert (found.status, found.reason) == (Status.FAILED, Reason.REFUSED)


@pytest.mark.parametrize(
    "answer",
    [broken(ErrorClass.TIMEOUT), broken(ErrorClass.DISCONNECT), broken(ErrorClass.PROTOCOL), answered(200, b"?")],
)
def test_at_most_once_ends_what_may_have_arrived(answer: Answer) -> None:
    assert outcome(answer).status is Status.PENDING
    found = outcome(answer, semantics=Semantics.AT_MOST_ONCE)
    assert (found.status, found.reason) == (Status.UNKNOWN, Reason.OUTCOME_UNKNOWN)


@pytest.mark.parametrize(
    "answer", [broken(ErrorClass.CONNECT, False), broken(ErrorClass.TIMEOUT, False), answered(503)]
)
def test_at_most_once_repeats_what_surely_was_not_delivered(answer: Answer) -> None:
    assert outcome(answer, semantics=Semantics.AT_MOST_ONCE).status is Status.PENDING


def test_the_backoff_doubles_up_to_its_maximum_and_never_beyond() -> None:
    retry = RetryPolicy(100, 1.0, 8.0)
    for attempts, most in [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 8.0), (99, 8.0)]:
        delays = [policy.retry_delay(retry, attempts, None, Random(seed)) for seed in range(300)]
        assert 0 <= min(delays) < most / 8
        assert most * 7 / 8 < max(delays) <= most


def test_retry_after_raises_the_delay_within_bounds() -> None:
    retry = RetryPolicy(5, 1.0, 8.0)
    assert policy.retry_delay(retry, 0, 5.0, Random(1)) == 5.0
    assert policy.retry_delay(retry, 0, 3600.0, Random(1)) == 8.0


def test_retries_fall_due_in_a_handful_of_slots_and_never_early() -> None:
    found = [outcome(Answer(500, b"", None, ErrorClass.NONE, True, n / 1000), seed=n).due_at for n in range(500)]
    assert len(set(found)) <= 13
    assert all(due_at is not None and due_at >= NOW for due_at in found)
    assert policy.in_slot(NOW, 0.125) == NOW
    assert policy.in_slot(NOW + timedelta(milliseconds=1), 0.125) == NOW + timedelta(milliseconds=125)


def unsent(of: Mailing, to: Recipient, reclaimed: bool = False) -> tuple[Status, Reason] | None:
    found = policy.without_sending(of, to, reclaimed, NOW)
    assert policy.are_all_sent(of, Recipients.of([to, to]), reclaimed, NOW) is (found is None), "the quick look differs"
    return None if found is None else (found.status, found.reason)


def test_what_is_not_sent_at_all_has_its_reason() -> None:
    assert unsent(mailing(), recipient()) is None
    assert unsent(mailing(), recipient(), reclaimed=True) is None
    once = mailing(semantics=Semantics.AT_MOST_ONCE)
    assert unsent(once, recipient(), reclaimed=True) == (Status.UNKNOWN, Reason.LEASE_LOST)
    assert unsent(once, recipient()) is None
    assert unsent(mailing(MailingState.CANCELLED), recipient()) == (Status.CANCELLED, Reason.MAILING_CANCELLED)
    assert unsent(mailing(), recipient(phone=None)) == (Status.CANCELLED, Reason.CLIENT_DELETED)
    assert unsent(mailing(ends_at=NOW), recipient()) == (Status.EXPIRED, Reason.MAILING_ENDED)
    assert unsent(mailing(ends_at=NOW + HOUR), recipient()) is None
    for reason in (Reason.OPTED_OUT, Reason.NO_LONGER_MATCHES, Reason.FREQUENCY_CAP):
        assert unsent(mailing(), recipient(skip_reason=reason)) == (Status.SKIPPED, reason)


@pytest.mark.parametrize(
    ("of", "to"),
    [
        (mailing(MailingState.CANCELLED), {}),
        (mailing(), {"phone": None}),
        (mailing(ends_at=NOW), {}),
        (mailing(), {"skip_reason": Reason.OPTED_OUT}),
        (mailing(ends_at=NOW + HOUR), {"opens_at": NOW + HOUR, "closes_in": 7200.0}),
    ],
    ids=["cancelled", "deleted", "ended", "opted out", "window"],
)
def test_what_may_have_been_sent_is_never_recorded_as_not_sent(of: Mailing, to: dict[str, Any]) -> None:
    assert unsent(of, recipient(**to, maybe_sent=True)) == (Status.UNKNOWN, Reason.MAYBE_SENT)
    assert unsent(mailing(), recipient(opens_at=NOW + HOUR, maybe_sent=True)) == (Status.PENDING, Reason.NONE)


def test_what_may_have_arrived_is_unknown_when_the_end_forbids_more() -> None:
    soon = NOW + timedelta(milliseconds=100)
    lost = outcome(broken(ErrorClass.TIMEOUT), ends_at=soon)
    assert (lost.status, lost.reason, lost.maybe_sent) == (Status.UNKNOWN, Reason.MAYBE_SENT, True)
    never_left = outcome(broken(ErrorClass.TIMEOUT, False), ends_at=soon)
    assert (never_left.status, never_left.maybe_sent) == (Status.EXPIRED, False)
    again = policy.failed(
        mailing(ends_at=soon), recipient(maybe_sent=True), answered(500), judge(answered(500)), NOW, Random(1)
    )
    assert (again.status, again.reason) == (Status.UNKNOWN, Reason.MAYBE_SENT)


def test_a_closed_window_defers_to_its_opening_unless_the_end_is_first() -> None:
    closed = recipient(opens_at=NOW + HOUR, closes_in=7200.0)
    found = policy.without_sending(mailing(ends_at=NOW + 2 * HOUR), closed, False, NOW)
    assert found is not None
    assert (found.status, found.due_at, found.attempted) == (Status.PENDING, NOW + HOUR, 0)
    assert unsent(mailing(ends_at=NOW + HOUR), closed) == (Status.EXPIRED, Reason.WINDOW_NOT_BEFORE_END)


def test_a_next_attempt_after_the_end_is_none() -> None:
    late = recipient(opens_at=NOW + HOUR, attempts=1)
    assert unsent(mailing(ends_at=NOW + HOUR), late) == (Status.EXPIRED, Reason.MAILING_ENDED)
    found = outcome(answered(500), ends_at=NOW + timedelta(milliseconds=100))
    assert (found.status, found.reason, found.due_at) == (Status.EXPIRED, Reason.MAILING_ENDED, None)
    assert found.failure is not None


@pytest.mark.parametrize(
    "answer",
    [
        broken(ErrorClass.CONNECT, False),
        broken(ErrorClass.RESOLVE, False),
        broken(ErrorClass.TLS, False),
        broken(ErrorClass.LOCAL, False),
        broken(ErrorClass.TIMEOUT, False),
        answered(429),
        answered(503, retry_after="1"),
    ],
)
def test_what_was_surely_not_looked_at_costs_no_attempt(answer: Answer) -> None:
    for attempts in (0, 2, 50):
        found = outcome(answer, attempts=attempts, uncounted=max(0, attempts - 2))
        assert (found.status, found.attempted, found.uncounted) == (Status.PENDING, 1, 1)


@pytest.mark.parametrize("answer", [answered(500), answered(200, b"?"), broken(ErrorClass.TIMEOUT)])
def test_what_may_have_arrived_always_counts(answer: Answer) -> None:
    assert outcome(answer, attempts=50, uncounted=48).status is Status.FAILED
    again = outcome(answer, attempts=50, uncounted=49)
    assert (again.status, again.uncounted) == (Status.PENDING, 0)


def test_attempts_that_cost_nothing_are_bounded_by_the_end_or_a_day() -> None:
    away = broken(ErrorClass.CONNECT, False)
    assert outcome(away, attempts=9, overdue=True).status is Status.FAILED
    assert outcome(away, attempts=1, overdue=True).uncounted == 0
    assert outcome(away, attempts=9, overdue=True, ends_at=NOW + HOUR).status is Status.PENDING
    assert outcome(away, attempts=9, ends_at=NOW).status is Status.EXPIRED
    assert outcome(away, attempts=policy.MOST_ATTEMPTS).status is Status.FAILED


def test_the_backoff_grows_with_attempts_that_cost_nothing() -> None:
    away, retry = broken(ErrorClass.CONNECT, False), RetryPolicy(3, 1.0, 64.0)
    found = [outcome(away, attempts=6, uncounted=6, seed=seed, retry=retry).due_at for seed in range(50)]
    assert max(due_at for due_at in found if due_at) > NOW + timedelta(seconds=32)


def test_an_expansion_step_aims_at_a_fixed_number_of_messages() -> None:
    assert policy.next_step(1000, 1000, 1000) == 4000
    assert policy.next_step(4000, 4000, 4000) == policy.EXPAND_TARGET
    assert policy.next_step(1000, 1000, 0) == 4000
    assert policy.next_step(40_000, 40_000, 0) == policy.EXPAND_MOST
    assert policy.next_step(50_000, 50_000, 50_000) == policy.EXPAND_TARGET
    assert policy.next_step(1000, 0, 0) == policy.EXPAND_FIRST


def test_the_idle_wait_ends_at_the_next_due_thing_within_its_bounds() -> None:
    assert policy.idle_wait(None, 3.0, 0.01, 5.0) == 3.0
    assert policy.idle_wait(1.5, 3.0, 0.01, 5.0) == 1.5
    assert policy.idle_wait(-2.0, 3.0, 0.01, 5.0) == 0.01
    assert policy.idle_wait(90.0, 64.0, 0.01, 5.0) == 5.0


def test_batches_are_small_where_a_lost_lease_is_final() -> None:
    assert policy.batch_size(Semantics.AT_LEAST_ONCE, 0.0, 500) == 500
    assert policy.batch_size(Semantics.AT_MOST_ONCE, 0.0, 500) == policy.AT_MOST_ONCE_BATCH


def test_batches_of_a_mailing_with_a_rate_last_a_few_seconds() -> None:
    sizes = [policy.batch_size(Semantics.AT_LEAST_ONCE, rate, 500) for rate in (0.01, 10, 100, 1e6)]
    assert sizes == [1, 20, 200, 500]
