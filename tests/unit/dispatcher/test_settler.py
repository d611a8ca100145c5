"""What the settler does when outcomes cannot be recorded: it tries without details, and waits."""

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
from dispatcher.recording import PATIENCE, Recording
from dispatcher.settler import Settler
from tests.unit.dispatcher.batches import ASKED, MAILING, NOW, lease, mailing

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
    """Takes settlements, unless `fault` returns what to raise for one instead; `held` says what it answers."""

    def __init__(self, fault: Callable[[Settlement], Exception | None], held: bool = True) -> None:
        self._held = held
        self.settled: list[Settlement] = []
        self.tries: list[Settlement] = []
        self._fault = fault

    async def settle(self, settlement: Settlement) -> bool:
        self.tries.append(settlement)
        if (fault := self._fault(settlement)) is not None:
            raise fault
        self.settled.append(settlement)
        return self._held

    async def scan(self) -> list[OpenWork]:
        raise AssertionError("the settler does not scan")

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        raise AssertionError("the settler asks for no definitions")

    async def change_numbers(self) -> dict[int, int]:
        raise AssertionError("the settler asks for no changes")

    async def changed_clients(self, bucket: int, after: int, until: int, client_ids: Sequence[int]) -> list[int]:
        raise AssertionError("the settler asks for no changes")

    async def claim(
        self,
        mailing: Mailing,
        bucket: int,
        most: int,
        lease: float,
        render: Render | None,
        held: Sequence[int] = (),
    ) -> list[ClaimedBatch]:
        raise AssertionError("the settler claims nothing")

    async def release_orphans(self, known: Sequence[int]) -> None:
        raise AssertionError("the settler releases nothing")


def ended(registry: LeaseRegistry, no: int, outcome: Outcome = EXPIRED, of: int = MAILING) -> Lease:
    """Return a lease of the registry that waits to be settled, with one message of this outcome."""
    one = lease(1, of=mailing(of), no=no)
    registry.add(one)
    one.record(0, outcome)
    registry.settle_soon(one)
    return one


@asynccontextmanager
async def settling(
    queue: Queue, registry: LeaseRegistry, clock: RunningClock | None = None, recording: Recording | None = None
) -> AsyncIterator[asyncio.Queue[Lease]]:
    """Run a settler inside the block, which gets the leases that are closed."""
    closed: asyncio.Queue[Lease] = asyncio.Queue()
    clock = clock or RunningClock()
    settler = Settler(queue, clock, registry, recording or Recording(clock))
    settler.closed.connect(closed.put_nowait)
    task = asyncio.create_task(settler.run())
    try:
        async with asyncio.timeout(10):
            yield closed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_outcomes_that_are_refused_do_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """As many leases are refused as there are workers, and more; they are held until they are taken."""
    registry, poisoned = LeaseRegistry(), 0
    for no in range(1, 6):
        ended(registry, no)
    last = ended(registry, 6)
    queue = Queue(lambda settlement: ValueError("no such number") if settlement.batch.no < poisoned else None)
    poisoned = 6
    async with settling(queue, registry) as closed:
        assert await closed.get() is last
        assert len(registry.leases) == 5
        poisoned = 0
        assert {(await closed.get()).batch.no for _ in range(5)} == {1, 2, 3, 4, 5}
    assert registry.lost == 0
    refused = [record for record in caplog.records if "cannot be recorded" in record.message and record.exc_info]
    assert [record.levelno for record in refused] == [logging.ERROR] * 5


async def test_outcomes_that_are_refused_are_written_without_details() -> None:
    registry = LeaseRegistry()
    one = ended(registry, 1, REFUSED)
    queue = Queue(lambda settlement: ValueError("no such character") if settlement.failed else None)
    async with settling(queue, registry) as closed:
        assert await closed.get() is one
    (settlement,) = queue.settled
    assert settlement.outcomes == (REFUSED._replace(endpoint_status=None, endpoint_code=None, failure=None),)
    assert registry.lost == 0


@pytest.mark.parametrize("fault", [StorageUnavailable("away"), ValueError("refused")], ids=["away", "refused"])
async def test_outcomes_are_held_for_longer_than_their_lease(fault: Exception) -> None:
    """A settlement comes again as it was, later and later: what was sent stays known as sent."""
    registry, clock = LeaseRegistry(), RunningClock()
    one = ended(registry, 1)
    queue = Queue(lambda _: fault if clock.now < one.held_until + 60 else None)
    async with settling(queue, registry, clock) as closed:
        assert await closed.get() is one
    assert all(settlement.outcomes == (EXPIRED,) for settlement in queue.tries)
    assert 40 <= len(queue.tries) <= 80
    assert registry.lost == 0


async def test_outcomes_are_given_up_when_their_batch_was_taken_over() -> None:
    registry = LeaseRegistry()
    one = ended(registry, 1)
    queue = Queue(lambda _: StorageUnavailable("only here") if len(queue.tries) < 10 else None, held=False)
    async with settling(queue, registry) as closed:
        assert await closed.get() is one
    assert len(queue.tries) == 10
    assert registry.lost == 1
    assert not registry.leases
    assert not one.allows(0, one.now())


async def test_a_refused_mailing_is_not_claimed_any_more_and_others_are() -> None:
    registry, clock = LeaseRegistry(), RunningClock()
    recording = Recording(clock)
    ended(registry, 1, of=1)
    last = ended(registry, 2, of=2)
    refused = True
    queue = Queue(lambda settlement: ValueError("no") if refused and settlement.batch.no == 1 else None)
    async with settling(queue, registry, clock, recording) as closed:
        assert await closed.get() is last
        while recording.failing_for < PATIENCE:
            assert recording.allows(1)
            await asyncio.sleep(0)
        assert (recording.allows(1), recording.allows(2), recording.failing) == (False, True, True)
        refused = False
        await closed.get()
    assert (recording.allows(1), recording.failing_for) == (True, 0.0)


async def test_nothing_is_claimed_while_the_database_takes_no_outcomes() -> None:
    registry, clock = LeaseRegistry(), RunningClock()
    recording = Recording(clock)
    ended(registry, 1, of=1)
    away = True
    queue = Queue(lambda _: StorageUnavailable("away") if away else None)
    async with settling(queue, registry, clock, recording) as closed:
        while recording.failing_for < PATIENCE:
            assert recording.allows(2)
            await asyncio.sleep(0)
        assert not recording.allows(1)
        assert not recording.allows(2)
        away = False
        await closed.get()
    assert recording.allows(2)
