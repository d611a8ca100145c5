"""A lease counts down by the monotonic clock and hands each message out once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from dispatcher import retry_policy as policy
from dispatcher.leases import LeaseRegistry
from dispatcher.model.outcomes import Failure, Outcome
from dispatcher.model.states import ErrorClass, Reason, Status
from tests.unit.dispatcher.batches import NOW, lease, mailing


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
    assert [one.take() for _ in range(5)] == [0, 2, 3, -1, -1]
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
    # Fails when outcomes that came in meanwhile, or were taken back, change what may have been written already.
    one = lease(2)
    one.record(0, failed(ErrorClass.CONNECT))
    first = one.settlement()
    one.uncount(since=100.0)
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
    assert one.take() == 0
    assert not one.release(one.mailing)
    assert not one.permit(None)()
    assert one.kept() == [32, 48]
    one.record(0, policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED))
    settlement = one.settlement()
    assert settlement is not None
    assert (settlement.client_ids, settlement.kept) == ((16,), [32, 48])
    other = lease(2)
    assert other.release(other.mailing)


def test_a_message_given_back_is_taken_again() -> None:
    one = lease(2)
    assert [one.take(), one.take(), one.take()] == [0, 1, -1]
    one.give_back(0)
    assert one.untaken
    assert [one.take(), one.take()] == [0, -1]


def test_nothing_starts_when_the_mailing_was_long_not_confirmed() -> None:
    one, late = lease(now=lambda: 100.89), lease(now=lambda: 100.91)
    assert one.permit(None)()
    assert not late.permit(None)()
    assert late.is_stale(100.91)
    late.confirm(100.5)
    assert late.permit(None)()


def test_nothing_starts_after_a_window_the_lease_or_the_end() -> None:
    assert lease(now=lambda: 100.5).permit(0.6)()
    assert not lease(now=lambda: 100.5).permit(0.5)()
    assert not lease(sending=0.5).permit(None)()
    assert not lease(of=mailing(ends_in=0.5)).permit(None)()
    assert not lease(of=mailing(ends_in=0.5)).is_stale(100.5)


def failed(error: ErrorClass, at: float = 1.0) -> Outcome:
    """Return the outcome of a last attempt that failed so many seconds after the claim."""
    failure = Failure(NOW + timedelta(seconds=at), error, "")
    return Outcome(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, 1, None, None, 5, None, failure)


def test_what_failed_in_an_outage_costs_no_attempt_until_written() -> None:
    one = lease(4)
    one.record(2, failed(ErrorClass.CONNECT))
    assert one.settlement()
    one.written()
    one.record(0, failed(ErrorClass.CONNECT, at=0.0))
    one.record(1, failed(ErrorClass.CONNECT))
    one.record(3, failed(ErrorClass.REFUSED))
    one.uncount(since=100.5)
    assert [outcome and outcome.status for outcome in one.outcomes] == [
        Status.FAILED,  # too long ago
        Status.PENDING,
        Status.FAILED,  # written
        Status.FAILED,  # it was an answer
    ]


def test_releasing_after_the_end_expires_what_nobody_has_begun() -> None:
    one = lease(2, mailing(ends_in=30.0), now=lambda: 130.0)
    assert one.release(one.mailing)
    assert [outcome and outcome.status for outcome in one.outcomes] == [Status.EXPIRED, Status.EXPIRED]


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


def test_a_batch_that_was_given_up_stays_known() -> None:
    # What was sent of it must not pass for a claim whose answer got lost, which is given back as unsent.
    registry, held, gone = LeaseRegistry(), lease(no=1), lease(no=2)
    registry.add(held)
    registry.add(gone)
    registry.give_up(gone)
    assert sorted(registry.batch_numbers) == [1, 2]
    assert registry.leases == {held}
    assert not gone.permit(None)()
