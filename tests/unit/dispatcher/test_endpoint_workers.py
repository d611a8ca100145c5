"""When a pool lets a request start: as long as its lease, its mailing and its recipient's window are open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.delivery.awaiting import TaskSender
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass, Status
from dispatcher.ports import Request
from tests.unit.dispatcher.batches import ASKED, lease

OK = Answer(200, b'{"code":0}', None, ErrorClass.NONE, True, 0.1)


class StandingClock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = ASKED

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a pool does not sleep")

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        raise AssertionError("a pool does not wait")


class Connecting(TaskSender):
    """A sender during whose connecting something happens."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.started = False
        self._meanwhile = meanwhile

    async def post(self, request: Request) -> Answer | None:
        assert request.may_start()
        self._meanwhile()
        self.started = request.may_start()
        return OK if self.started else None


def delivered_when(meanwhile: Callable[[StandingClock, Lease], None], closes_in: float | None = None) -> bool:
    """Return whether a message is delivered when that happens while its connection is opened; else it is kept."""

    async def case() -> bool:
        clock, registry = StandingClock(), LeaseRegistry()
        one = lease(1, closes_in=closes_in, now=clock.monotonic)
        one.confirm(ASKED + 1000.0)
        sender = Connecting(lambda: meanwhile(clock, one))
        endpoint = Endpoint("default", "http://127.0.0.1:1/", "")
        pool = EndpointWorkers(endpoint, sender, registry, ConcurrencyLimit(1), clock, Random(1))
        pool.enqueue(one)
        async with asyncio.timeout(10):
            assert await registry.next_to_settle() is one
        await pool.close()
        (outcome,) = one.outcomes
        assert outcome is not None
        delivered = outcome.status is Status.DELIVERED
        assert one.kept == ([] if delivered else [16])
        return delivered

    return asyncio.run(case())


def turn(seconds: float) -> Callable[[StandingClock, Lease], None]:
    def meanwhile(clock: StandingClock, _: Lease) -> None:
        clock.now = ASKED + seconds

    return meanwhile


@pytest.mark.parametrize(
    ("seconds", "closes_in", "delivered"),
    [(44.9, None, True), (45.0, None, False), (9.9, 10.0, True), (10.0, 10.0, False), (45.0, 90.0, False)],
)
def test_no_request_starts_after_the_lease_or_the_window(
    seconds: float, closes_in: float | None, delivered: bool
) -> None:
    # Fails when the pool leaves the lease's question or the window out of what it hands to the sender.
    assert delivered_when(turn(seconds), closes_in) is delivered


def test_no_request_starts_under_a_revoked_lease() -> None:
    def revoke(_: StandingClock, one: Lease) -> None:
        one.revoked = True

    assert not delivered_when(revoke)
    assert delivered_when(lambda *_: None)
