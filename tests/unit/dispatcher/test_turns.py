"""A pool works by turns: short ones, in the order of the answers, and many at once are as many one by one."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from dispatcher.breaker import Breaker
from dispatcher.concurrency_limiter import WINDOW, ConcurrencyLimit
from dispatcher.endpoint_workers import TURN, EndpointWorkers
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.endpoints import Answer, Endpoint, Slots
from dispatcher.model.states import ErrorClass, Status
from dispatcher.pace import Pace
from dispatcher.poll_backoff import LoopClock
from dispatcher.ports import Request
from dispatcher.rate_limiter import RateLimiter
from tests.unit.dispatcher.batches import lease

OK = Answer(200, b'{"code":0}', None, ErrorClass.NONE, True, 0.1)
BROKEN = Answer(500, b"", None, ErrorClass.NONE, True, 0.1)

NONSENSE = Answer(200, None, None, ErrorClass.NONE, True, 0.1)  # type: ignore[arg-type]
"""What no sender gives, so that judging it fails."""


class Collecting:
    """A sender that keeps requests until the test answers them; it fails for the `defect`ive one."""

    def __init__(self, defect: int | None = None) -> None:
        self.requests: list[Request] = []
        self._defect = defect

    def send(self, request: Request) -> None:
        self.requests.append(request)
        if len(self.requests) == self._defect:
            raise ZeroDivisionError

    def renew(self, endpoint: Endpoint) -> None:
        raise AssertionError("no test has new secrets")

    async def close(self) -> None:
        for request in self.requests:
            request.answered(OK)


def pool_of(sender: Collecting, limit: int = 64) -> EndpointWorkers:
    endpoint = Endpoint("default", "http://127.0.0.1:1/", "")
    return EndpointWorkers(endpoint, sender, LeaseRegistry(), ConcurrencyLimit(limit, limit), LoopClock(), Random(1))


def fresh(messages: int) -> Lease:
    """Return a lease whose messages may start for long."""
    one = lease(messages, sending=1e9, now=LoopClock().monotonic)
    one.confirm(1e9)
    return one


async def turns(count: int = 1) -> None:
    """Let the loop run so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_turn_is_short_and_the_next_one_comes_by_itself() -> None:
    # Fails when one turn begins whatever may start: the loop has other things to do.
    pool = pool_of(sender := Collecting())
    pool.enqueue(fresh(100))
    for n in range(1, 64 // TURN + 1):
        await turns()
        assert len(sender.requests) == n * TURN
    await turns(3)
    assert len(sender.requests) == pool.in_flight == 64


async def test_answers_are_judged_a_turn_s_share_at_a_time_and_make_room() -> None:
    pool = pool_of(sender := Collecting())
    pool.enqueue(one := fresh(100))
    await turns(8)
    for request in sender.requests[:]:
        request.answered(OK)
    await turns()
    assert (100 - one.left, len(sender.requests)) == (TURN, 64 + TURN)
    await turns(8)
    assert (100 - one.left, len(sender.requests), pool.in_flight) == (64, 100, 36)


async def test_answers_of_one_turn_count_in_their_order() -> None:
    pool = pool_of(sender := Collecting())
    pool.enqueue(one := fresh(15))
    await turns()
    for n, request in enumerate(sender.requests[:]):
        request.answered(BROKEN if n % 3 == 2 else OK)
    await turns()
    delivered = [outcome is not None and outcome.status is Status.DELIVERED for outcome in one.outcomes]
    assert delivered == [True, True, False] * 5
    assert pool.breaker.failure_ratio == pytest.approx(1 / 3)
    assert (pool.breaker.closed, pool.in_flight) == (True, 0)


async def test_a_sender_that_fails_on_the_spot_loses_no_message() -> None:
    pool = pool_of(sender := Collecting(defect=2))
    pool.enqueue(one := fresh(3))
    await turns(2)
    outcome = one.outcomes[1]
    assert outcome is not None
    assert (outcome.status, outcome.maybe_sent, len(sender.requests)) == (Status.PENDING, True, 3)


async def test_an_answer_that_cannot_be_judged_holds_up_no_other() -> None:
    pool = pool_of(sender := Collecting())
    pool.enqueue(one := fresh(3))
    await turns()
    for n, request in enumerate(sender.requests[:]):
        request.answered(NONSENSE if n == 1 else OK)
    await turns(2)
    known = [outcome.status for outcome in one.outcomes if outcome is not None]
    assert known == [Status.DELIVERED, Status.UNKNOWN, Status.DELIVERED]
    assert (one.left, pool.in_flight) == (0, 0)


async def test_of_what_a_closing_cuts_off_nothing_is_recorded() -> None:
    pool = pool_of(Collecting())
    pool.enqueue(one := fresh(3))
    await turns()
    await pool.close()
    await turns(3)
    assert (one.left, one.outcomes) == (3, [None] * 3)


def test_many_at_once_are_as_many_one_by_one() -> None:
    together, alone = Breaker(), Breaker()
    limits = ConcurrencyLimit(1024, 8), ConcurrencyLimit(1024, 8)
    limiters = RateLimiter("", 100.0), RateLimiter("", 100.0)
    for limiter in limiters:
        limiter.add(100.0, Slots(0.0, 0.01, 3))
        limiter.add(100.03, Slots(0.0, 0.01, 3))
    limiters[0].take(4)
    together.succeeded(100.0, 40)
    limits[0].observe(100.0 + WINDOW, 0.04 * 40, ErrorClass.NONE, 8, 40)
    for _ in range(40):
        alone.observe(100.0, 99.9, False)
        limits[1].observe(100.0 + WINDOW, 0.04, ErrorClass.NONE, 8)
    for _ in range(4):
        limiters[1].take()
    for breaker in (together, alone):
        breaker.observe(100.0, 99.9, True)
    assert together.failure_ratio == alone.failure_ratio == 1 / 41
    assert [limiter.ready(100.055) for limiter in limiters] == [2, 2]
    assert [limit.kept for limit in limits] == [8, 8]


def test_a_pace_measures_all_that_were_accepted() -> None:
    paces = Pace(), Pace()
    paces[0].accepted(99.0, 50)
    for _ in range(50):
        paces[1].accepted(99.0)
    for pace in paces:
        pace.throttled(100.0, 99.5, 1.0)
        assert pace.ready(101.0, 10) == 1
    assert paces[0].rate(101.0) == paces[1].rate(101.0) > 0
