"""A lease counts down by the monotonic clock and hands each message out once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from dispatcher import retry_policy as policy
from dispatcher.leases import Lease, LeaseRegistry, LeaseTerms
from dispatcher.model.batches import Recipients
from dispatcher.model.outcomes import Failure, Outcome
from dispatcher.model.states import ErrorClass, Reason, Status
from tests.unit.dispatcher.batches import NOW, lease, mailing

WINDOWS = [(1, None), (2, 10.0), (3, 5.0)]
"""Clients, and in how many seconds their windows close."""


def may_start(one: Lease, index: int = 0) -> bool:
    """Return whether a message on its way may start now; both ways to ask say the same of a lease without windows."""
    now = one.now()
    return one.allows_all(now) or one.allows(index, now)


def test_sending_ends_with_the_lease_or_the_mailing_whichever_is_first() -> None:
    assert lease().send_until == 145.0
    assert lease(of=mailing(ends_in=30.0)).send_until == 130.0
    assert lease(of=mailing(ends_in=300.0)).send_until == 145.0


def test_the_databases_time_is_never_believed_to_be_earlier_than_it_is() -> None:
    # The database answered after it was asked, so counting from the question runs ahead.
    assert lease().now_at(100.0) == NOW
    assert lease().now_at(110.5) == NOW + timedelta(seconds=10.5)


def test_each_message_is_taken_once_and_recorded_ones_are_passed_over() -> None:
    one = lease(4)
    one.record(1, policy.unsent(Status.SKIPPED, Reason.OPTED_OUT))
    assert [one.take(3), one.take(3), one.take(3)] == [[0, 2], [3], []]
    assert one.left == 3


def test_before_all_is_done_only_terminal_outcomes_are_written() -> None:
    one = lease(3)
    one.record(2, policy.put_off(NOW))
    one.record(0, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    first = one.settlement()
    assert first is not None
    assert [(client, before) for client, before, _ in first] == [(16, 1)]
    assert not first.done
    one.written()
    assert one.settlement() is None
    one.record(1, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    last = one.settlement()
    assert last is not None
    assert last.client_ids == (32, 48)
    assert last.done


def test_a_settlement_that_was_not_answered_comes_again_as_it_was() -> None:
    # Fails when outcomes that came in meanwhile change what may have been written already.
    one = lease(2)
    one.record(0, failed(ErrorClass.CONNECT))
    first = one.settlement()
    one.record(1, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    assert one.settlement() is first
    one.leave_details_out()
    bare = one.settlement()
    assert bare is not None
    assert [outcome.failure for _, _, outcome in bare] == [None]
    one.written()
    rest = one.settlement()
    assert rest is not None
    assert rest.client_ids == (32,)


def test_releasing_leaves_what_nobody_has_begun_in_the_batch() -> None:
    one = lease(3)
    assert one.take() == [0]
    assert not one.release(one.mailing)
    assert not may_start(one)
    assert one.kept == [32, 48]
    one.record(0, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    settlement = one.settlement()
    assert settlement is not None
    assert (settlement.client_ids, settlement.kept) == ((16,), [32, 48])
    other = lease(2)
    assert other.release(other.mailing)


def test_a_message_given_back_is_taken_again() -> None:
    one = lease(2)
    assert one.take(3) == [0, 1]
    one.give_back(0)
    assert one.untaken
    assert [one.take(2), one.take()] == [[0], []]


def test_nothing_starts_when_the_mailing_was_long_not_confirmed() -> None:
    one, late = lease(now=lambda: 100.89), lease(now=lambda: 100.91)
    assert may_start(one)
    assert not may_start(late)
    assert late.is_stale(100.91)
    late.confirm(100.5)
    assert may_start(late)


def test_nothing_starts_after_a_window_the_lease_or_the_end() -> None:
    assert may_start(lease(now=lambda: 100.5, closes_in=0.6))
    assert not may_start(lease(now=lambda: 100.5, closes_in=0.5))
    assert not may_start(lease(sending=0.5))
    assert not may_start(lease(of=mailing(ends_in=0.5)))
    assert not lease(of=mailing(ends_in=0.5)).is_stale(100.5)


def failed(error: ErrorClass, at: float = 1.0) -> Outcome:
    """Return the outcome of a last attempt that failed so many seconds after the claim."""
    failure = Failure(NOW + timedelta(seconds=at), error, "")
    return Outcome(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, 1, None, None, 5, None, failure)


def test_the_quick_look_never_says_more_than_the_thorough_one() -> None:
    # Fails when the window that closes first is left out of the quick one.
    recipients = Recipients.of((16 * n, 0, 0, False, "79", 0, None, closes, False, "x") for n, closes in WINDOWS)
    one = Lease(replace(lease(1).batch, recipients=recipients), mailing(), 100.0, LeaseTerms(60.0, 45.0), lambda: 100.0)
    one.confirm(1000.0)
    for now in (100.0, 104.9, 105.0, 109.9, 110.0, 144.9, 145.0):
        assert one.allows_all(now) == all(one.allows(index, now) for index, _ in enumerate(WINDOWS))


def test_releasing_after_the_end_expires_what_nobody_has_begun() -> None:
    one = lease(2, mailing(ends_in=30.0), now=lambda: 130.0)
    assert one.release(one.mailing)
    assert [outcome and outcome.status for outcome in one.outcomes] == [Status.EXPIRED, Status.EXPIRED]


def test_a_reclaimed_batch_released_after_the_end_stays_maybe_sent() -> None:
    # Its earlier holder may have sent what nobody here has begun.
    of = mailing(ends_in=30.0)
    one = lease(2, of, now=lambda: 130.0, reclaimed=True)
    assert one.release(of)
    assert [outcome and outcome.reason for outcome in one.outcomes] == [Reason.MAYBE_SENT, Reason.MAYBE_SENT]


def test_messages_of_a_changed_client_stay_in_the_batch_unless_sent() -> None:
    one = lease(4)
    assert one.take(3) == [0, 1, 2]
    one.give_back(1)
    assert not one.withdraw({16, 32, 64, 999})
    assert [may_start(one), may_start(one, 2)] == [False, True]
    assert not one.can_wait(0, 101.0)
    assert one.can_wait(2, 101.0)
    assert one.untaken == 0  # nor does anything seem to wait
    assert one.take() == []
    assert one.kept == [32, 64]
    one.record(0, failed(ErrorClass.SERVER))
    one.keep(2)
    assert one.left == 0
    assert lease(1).withdraw({16})


async def test_the_registry_counts_leases_by_mailing_and_notes_changes() -> None:
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
