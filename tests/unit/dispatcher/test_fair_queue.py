"""Who sends next: priorities first, turns among equals, and something for everybody."""

from __future__ import annotations

from collections import Counter

from dispatcher.fair_queue import EQUAL_TURN, QUANTUM, FairQueue
from dispatcher.leases import Lease
from dispatcher.model.endpoints import Slots
from tests.unit.dispatcher import batches


def lease(mailing_id: int, size: int = 500, priority: int = 0, max_rate: float = 0.0) -> Lease:
    return batches.lease(size, batches.mailing(mailing_id, priority=priority, max_rate=max_rate))


def served(queue: FairQueue, messages: int) -> list[int]:
    """Return the mailings of the next messages."""
    order = []
    for _ in range(messages):
        one, _ = queue.next(100.1)
        if one is None:
            break
        one.take()
        order.append(one.mailing.id)
        queue.tidy()
    return order


def filled(*leases: Lease) -> FairQueue:
    queue = FairQueue()
    for one in leases:
        queue.add(one)
    return queue


def test_a_small_mailing_does_not_wait_for_a_large_one() -> None:
    queue = filled(*[lease(1) for _ in range(4)], lease(2, size=50))
    order = served(queue, 120)
    assert order.count(2) == 50
    assert max(len(run) for run in "".join("x" if one == 1 else " " for one in order).split()) <= 2 * QUANTUM


def test_equals_take_turns() -> None:
    assert Counter(served(filled(lease(1), lease(2), lease(3)), 24 * QUANTUM)) == dict.fromkeys((1, 2, 3), 8 * QUANTUM)


def test_the_highest_priority_comes_first_and_the_others_do_not_starve() -> None:
    order = served(filled(lease(1), lease(2, priority=5)), 40 * QUANTUM)
    share = order.count(1) / len(order)
    assert 0.5 / EQUAL_TURN <= share <= 1.5 / EQUAL_TURN
    assert order[: 2 * QUANTUM] == [2] * (2 * QUANTUM)


def test_a_mailing_whose_gate_is_closed_is_passed_over() -> None:
    queue = filled(lease(1, max_rate=10.0), lease(2, size=3))
    assert served(queue, 10) == [2, 2, 2]
    limiter = queue.queues[1].limiter
    assert limiter is not None
    limiter.add(100.1, Slots(0.0, 0.1, 1))
    assert queue.startable(100.1) == 1
    assert served(queue, 1) == [1]


def test_a_stale_lease_waits() -> None:
    queue = filled(lease(1))
    assert queue.next(100.95) == (None, 0)
    queue.queues[1].leases[0].confirm(100.5)
    assert queue.next(100.95)[1] == 1


def test_a_message_given_back_comes_again() -> None:
    one = lease(1, size=1)
    queue = filled(one)
    assert served(queue, 2) == [1]
    one.give_back(0)
    queue.restore(one)
    assert served(queue, 2) == [1]
    assert not queue.queues


def test_a_newer_lease_brings_the_mailings_priority_and_rate() -> None:
    queue = filled(lease(1, max_rate=10.0), lease(1, priority=7, max_rate=20.0))
    own = queue.queues[1]
    assert own.priority == 7
    assert own.limiter is not None
    assert own.limiter.rate == 20.0
    queue.add(lease(1))
    assert own.limiter is None
