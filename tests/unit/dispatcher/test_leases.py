"""A lease counts down by the monotonic clock and hands each message out once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from dispatcher import retry_policy as policy
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.records import ClaimedBatch, Failure, Mailing, Outcome, Recipient, RetryPolicy
from dispatcher.model.states import ErrorClass, MailingState, Reason, Semantics, Status

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def lease(
    recipients: int = 3, ends_in: float | None = None, asked: float = 100.0, sending: float = 45.0, now: float = 100.5
) -> Lease:
    ends_at = None if ends_in is None else NOW + timedelta(seconds=ends_in)
    mailing = Mailing(7, 1, MailingState.RUNNING, "x", "", Semantics.AT_LEAST_ONCE, 0, ends_at, RetryPolicy())
    people = [Recipient(16 * n, n, 0, "79", Reason.NONE, None, None, "x") for n in range(1, recipients + 1)]
    return Lease(ClaimedBatch(0, 7, 1, 1, NOW, False, people), mailing, asked, sending, lambda: now)


def test_sending_ends_with_the_lease_or_with_the_mailing_whichever_is_first() -> None:
    assert lease().send_until == 145.0
    assert lease(ends_in=30.0).send_until == 130.0
    assert lease(ends_in=300.0).send_until == 145.0


def test_the_databases_time_is_never_believed_to_be_earlier_than_it_is() -> None:
    # The database answered after it was asked, so counting from the question runs ahead.
    assert lease().now_at(100.0) == NOW
    assert lease().now_at(110.5) == NOW + timedelta(seconds=10.5)


def test_each_message_is_taken_once_and_recorded_ones_are_passed_over() -> None:
    one = lease(4)
    one.record(1, policy.unsent(Status.SKIPPED, Reason.OPTED_OUT))
    assert [one.take() for _ in range(5)] == [0, 2, 3, -1, -1]
    assert one.left == 3


def test_before_all_is_done_only_terminal_outcomes_are_written() -> None:
    one = lease(3)
    one.record(2, policy.put_off(NOW))
    one.record(0, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    settled, indices = one.unsaved()
    assert indices == [0]
    assert [(client, before) for client, before, _ in settled] == [(16, 1)]
    one.saved[0] = 1
    one.record(1, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    settled, indices = one.unsaved()
    assert indices == [1, 2]
    assert [client for client, _, _ in settled] == [32, 48]


def test_releasing_leaves_what_nobody_has_begun_in_the_batch() -> None:
    one = lease(3)
    assert one.take() == 0
    assert not one.release(one.mailing)
    assert not one.permit(None)()
    assert one.kept() == [32, 48]
    one.record(0, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    settled, _ = one.unsaved()
    assert [client for client, _, _ in settled] == [16]
    other = lease(2)
    assert other.release(other.mailing)


def test_a_message_given_back_is_taken_again() -> None:
    one = lease(2)
    assert [one.take(), one.take(), one.take()] == [0, 1, -1]
    one.give_back(0)
    assert one.untaken
    assert [one.take(), one.take()] == [0, -1]


def test_nothing_starts_once_the_mailing_has_not_been_confirmed_for_a_while() -> None:
    one, late = lease(now=100.89), lease(now=100.91)
    assert one.permit(None)()
    assert not late.permit(None)()
    assert late.is_stale(100.91)
    late.confirm(100.5)
    assert late.permit(None)()


def test_nothing_starts_after_a_window_the_lease_or_the_end() -> None:
    assert lease(now=100.5).permit(0.6)()
    assert not lease(now=100.5).permit(0.5)()
    assert not lease(sending=0.5).permit(None)()
    assert not lease(ends_in=0.5).permit(None)()
    assert not lease(ends_in=0.5).is_stale(100.5)


def test_what_failed_because_the_endpoint_is_down_is_forgiven_until_it_is_written() -> None:
    one = lease(4)
    for index, at in enumerate([0.0, 1.0, 1.0, 1.0]):
        failure = Failure(NOW + timedelta(seconds=at), ErrorClass.REFUSED if index == 3 else ErrorClass.CONNECT, "")
        exhausted = Outcome(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, 1, None, None, 5, None, failure)
        one.record(index, exhausted)
    one.saved[2] = 1
    one.uncount(since=100.5)
    assert [outcome and outcome.status for outcome in one.outcomes] == [
        Status.FAILED,  # too long ago
        Status.PENDING,
        Status.FAILED,  # written
        Status.FAILED,  # it was an answer
    ]


def test_releasing_after_the_end_expires_what_nobody_has_begun() -> None:
    one = lease(2, ends_in=30.0, now=130.0)
    assert one.release(one.mailing)
    assert [outcome and outcome.status for outcome in one.outcomes] == [Status.EXPIRED, Status.EXPIRED]


async def test_the_book_counts_leases_by_mailing_and_tells_of_changes() -> None:
    registry, one, two = LeaseRegistry(), lease(), lease()
    registry.add(one)
    registry.add(two)
    assert registry.by_mailing == {7: 2}
    waiting = asyncio.create_task(registry.changed())
    registry.remove(one)
    await waiting
    registry.remove(two)
    assert not registry.by_mailing
    assert not registry.leases
