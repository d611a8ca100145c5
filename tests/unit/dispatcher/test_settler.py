"""What the settler does when outcomes cannot be recorded: it waits, tries without details, or gives up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from dispatcher import retry_policy as policy
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.batches import ClaimedBatch, OpenWork
from dispatcher.model.mailings import Mailing
from dispatcher.model.outcomes import Failure, Outcome, Settlement
from dispatcher.model.states import ErrorClass, Reason, Status
from dispatcher.ports import Render, StorageUnavailable
from dispatcher.settler import Settler
from tests.unit.dispatcher.batches import ASKED, NOW, lease

EXPIRED = policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED)
REFUSED = Outcome(
    Status.FAILED, Reason.REFUSED, 1, 404, 7, 5, None, Failure(NOW + timedelta(seconds=1), ErrorClass.REFUSED, "no")
)


class RunningClock:
    """A clock on which a sleep takes no time but its own."""

    def __init__(self) -> None:
        self.now = ASKED

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        raise AssertionError("the settler does not wait")


class Queue:
    """Takes settlements, unless `fault` returns what to raise for one instead."""

    def __init__(self, fault: Callable[[Settlement], Exception | None]) -> None:
        self.settled: list[Settlement] = []
        self.tries: list[Settlement] = []
        self._fault = fault

    async def settle(self, settlement: Settlement) -> bool:
        self.tries.append(settlement)
        if (fault := self._fault(settlement)) is not None:
            raise fault
        self.settled.append(settlement)
        return True

    async def scan(self) -> list[OpenWork]:
        raise AssertionError("the settler does not scan")

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        raise AssertionError("the settler asks for no definitions")

    async def claim(
        self, mailing: Mailing, bucket: int, most: int, lease: float, render: Render | None
    ) -> list[ClaimedBatch]:
        raise AssertionError("the settler claims nothing")

    async def release_orphans(self, known: Sequence[int]) -> None:
        raise AssertionError("the settler releases nothing")


def ended(registry: LeaseRegistry, no: int, outcome: Outcome = EXPIRED) -> Lease:
    """Return a lease of the registry that waits to be settled, with one message of this outcome."""
    one = lease(1, no=no)
    registry.add(one)
    one.record(0, outcome)
    registry.settle_soon(one)
    return one


@asynccontextmanager
async def settling(queue: Queue, registry: LeaseRegistry) -> AsyncIterator[asyncio.Queue[Lease]]:
    """Run a settler inside the block, which gets the leases that are closed."""
    closed: asyncio.Queue[Lease] = asyncio.Queue()
    settler = Settler(queue, RunningClock(), registry)
    settler.closed.connect(closed.put_nowait)
    task = asyncio.create_task(settler.run())
    try:
        async with asyncio.timeout(10):
            yield closed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_outcomes_that_are_refused_do_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """As many leases are refused as there are workers, and more."""
    registry = LeaseRegistry()
    poisoned = [ended(registry, no) for no in range(1, 6)]
    last = ended(registry, 6)
    queue = Queue(lambda settlement: ValueError("no such number") if settlement.batch.no < 6 else None)
    async with settling(queue, registry) as closed:
        assert {await closed.get() for _ in range(6)} == {*poisoned, last}
    assert [settlement.batch.no for settlement in queue.settled] == [6]
    assert len(queue.tries) == 2 * len(poisoned) + 1
    assert not registry.leases
    assert registry.lost == len(poisoned)
    given_up = [record for record in caplog.records if "are given up" in record.message]
    assert [record.levelno for record in given_up] == [logging.ERROR] * len(poisoned)
    assert all(record.exc_info for record in given_up)


async def test_outcomes_that_are_refused_are_written_without_details() -> None:
    registry = LeaseRegistry()
    one = ended(registry, 1, REFUSED)
    queue = Queue(lambda settlement: ValueError("no such character") if settlement.failed else None)
    async with settling(queue, registry) as closed:
        assert await closed.get() is one
    (settlement,) = queue.settled
    assert settlement.outcomes == (REFUSED._replace(endpoint_status=None, endpoint_code=None, failure=None),)
    assert registry.lost == 0


async def test_outcomes_wait_for_a_database_away_for_longer_than_the_lease() -> None:
    registry = LeaseRegistry()
    ended(registry, 1)
    queue = Queue(lambda _: StorageUnavailable("away") if len(queue.tries) < 100 else None)
    async with settling(queue, registry) as closed:
        one = await closed.get()
    assert [settlement.batch.no for settlement in queue.settled] == [one.batch.no]
    assert len({id(settlement) for settlement in queue.tries}) == 1
    assert registry.lost == 0


async def test_a_lease_asked_for_while_its_write_fails_is_not_forgotten() -> None:
    """Another worker leaves it to the one that is writing it, whose write then fails."""
    registry = LeaseRegistry()
    one = ended(registry, 1)

    class Slow(Queue):
        async def settle(self, settlement: Settlement) -> bool:
            if not self.tries:
                registry.settle_soon(one)
                for _ in range(5):  # until another worker has seen it
                    await asyncio.sleep(0)
            return await super().settle(settlement)

    queue = Slow(lambda _: StorageUnavailable("away") if len(queue.tries) == 1 else None)
    async with settling(queue, registry) as closed:
        assert await closed.get() is one


async def test_nothing_is_retried_after_its_lease_when_the_database_answers() -> None:
    registry = LeaseRegistry()
    one = ended(registry, 1)
    registry.answered_at = one.held_until

    def fault(_: Settlement) -> Exception:
        if len(queue.tries) == 10:
            registry.answered_at = one.held_until + 0.1
        return StorageUnavailable("only here")

    queue = Queue(fault)
    async with settling(queue, registry) as closed:
        assert await closed.get() is one
    assert len(queue.tries) == 10
    assert registry.lost == 1
    assert not one.permit(None)()


async def test_a_lease_whose_write_is_not_answered_does_not_hold_up_the_others() -> None:
    registry = LeaseRegistry()
    for no in range(1, 6):
        ended(registry, no)
    last = ended(registry, 6)
    queue = Queue(lambda settlement: StorageUnavailable("only here") if settlement.batch.no < 6 else None)
    async with settling(queue, registry) as closed:
        assert await closed.get() is last
    assert len(registry.leases) == 5
