"""When the claimer asks the database what is open, and how much it claims for an endpoint that asked for patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

import pytest

from dispatcher.breaker_sync import BreakerSync
from dispatcher.claimer import Claimer
from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.delivery.awaiting import TaskSender
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.leases import LeaseRegistry, LeaseTerms
from dispatcher.model.batches import ClaimedBatch, OpenWork
from dispatcher.model.endpoints import Answer, Endpoint, EndpointState
from dispatcher.model.mailings import Mailing
from dispatcher.model.outcomes import Settlement
from dispatcher.model.states import BreakerState, Suspension
from dispatcher.open_work import SCAN_AGE, OpenWorkList
from dispatcher.ports import Render, Request
from dispatcher.recording import Recording
from dispatcher.tasks import cancel
from tests.unit.dispatcher.batches import ASKED, MAILING, lease, mailing

OTHER = MAILING + 1


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = ASKED

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing fails here")

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        await event.wait()


class Busy(TaskSender):
    """A sender whose requests do not end."""

    async def post(self, request: Request) -> Answer | None:
        await asyncio.Event().wait()
        return None


class Queue:
    """Has these batches of a mailing, and counts how often it is asked for what is open."""

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.scans = 0

    async def scan(self) -> list[OpenWork]:
        self.scans += 1
        return [OpenWork(MAILING, 0, self.left, 1, 0, "default", False)] if self.left else []

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        return {id_: mailing(id_) for id_ in ids}

    async def claim(
        self,
        mailing: Mailing,
        bucket: int,
        most: int,
        lease_length: float,
        render: Render | None,
        held: Sequence[int] = (),
    ) -> list[ClaimedBatch]:
        if not self.left:
            return []
        self.left -= 1
        return [lease(no=self.left + 1).batch]

    async def change_numbers(self) -> dict[int, int]:
        raise AssertionError("the claimer asks for no changes")

    async def changed_clients(self, bucket: int, after: int, until: int, client_ids: Sequence[int]) -> list[int]:
        raise AssertionError("the claimer asks for no changes")

    async def release_orphans(self, known: Sequence[int]) -> None:
        raise AssertionError("nothing fails here")

    async def settle(self, settlement: Settlement) -> bool:
        raise AssertionError("nothing ends here")


class Health:
    """Knows of no endpoint that is down, of one pause, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.pause_in = 0.0

    async def breakers(self, endpoints: Sequence[str]) -> dict[str, EndpointState]:
        self.asked += 1
        state = EndpointState(BreakerState.CLOSED, 0.0, pause_in=self.pause_in)
        return dict.fromkeys(endpoints, state) if self.pause_in else {}

    async def open_breaker(self, endpoint: str, probe_in: float, error: str, suspension: Suspension) -> bool:
        raise AssertionError("nothing fails here")

    async def pause(self, endpoint: str, seconds: float) -> None:
        raise AssertionError("nothing fails here")

    async def begin_probe(self, endpoint: str, longest: float) -> bool:
        return False

    async def close_breaker(self, endpoint: str) -> None:
        raise AssertionError("nothing fails here")

    async def fail_probe(self, endpoint: str, shortest: float, longest: float, error: str) -> float:
        raise AssertionError("nothing fails here")


class Scene:
    """A claimer at work for an endpoint that has room for four of these batches."""

    def __init__(self, batches: int) -> None:
        self.clock, self.queue, self.health = Clock(), Queue(batches), Health()
        registry, random = LeaseRegistry(), Random(1)
        endpoint = Endpoint("default", "http://127.0.0.1:1/", "")
        self.pool = EndpointWorkers(endpoint, Busy(), registry, ConcurrencyLimit(1), self.clock, random)
        recording = Recording(self.clock)
        work = OpenWorkList(self.queue, registry, recording, {"default": self.pool}, self.clock, random, 10)
        self.breaker_sync = BreakerSync(self.health, self.clock, registry)
        terms = LeaseTerms(60.0, 45.0)
        self.claimer = Claimer(self.queue, work, self.breaker_sync, registry, terms, self.clock)

    async def scans_after(self, signal: Callable[[], None]) -> int:
        """Return how often the database was asked for open work because of a signal."""
        before = self.queue.scans
        signal()
        for _ in range(200):
            await asyncio.sleep(0)
        return self.queue.scans - before


@asynccontextmanager
async def claiming(batches: int) -> AsyncIterator[Scene]:
    """Yield a claimer that has claimed what there is room for."""
    scene = Scene(batches)
    working = asyncio.create_task(scene.claimer.run())
    try:
        await scene.scans_after(scene.claimer.wake)
        yield scene
    finally:
        await cancel(working)
        await scene.pool.close()


async def test_what_waits_for_room_is_not_looked_for_again() -> None:
    async with claiming(9) as scene:
        assert scene.queue.left == 5
        claimer = scene.claimer
        assert await scene.scans_after(claimer.room_again) == 0
        assert await scene.scans_after(lambda: claimer.added(MAILING)) == 0


async def test_what_no_scan_has_found_is_looked_for_at_once() -> None:
    async with claiming(9) as scene:
        claimer = scene.claimer
        assert await scene.scans_after(lambda: claimer.added(OTHER)) == 1
        assert await scene.scans_after(claimer.wake) == 1


async def test_nothing_is_chosen_from_a_scan_that_is_too_old() -> None:
    async with claiming(9) as scene:
        scene.clock.now += 2 * SCAN_AGE
        assert await scene.scans_after(scene.claimer.room_again) == 1


async def test_more_is_looked_for_once_all_that_is_known_is_claimed() -> None:
    async with claiming(2) as scene:
        assert scene.queue.left == 0
        scene.queue.left = 1
        assert await scene.scans_after(lambda: scene.claimer.added(MAILING)) >= 1
        assert scene.queue.left == 0


async def test_an_endpoint_that_is_down_is_tried_although_work_waits() -> None:
    """The scan also asks whether it is time to try an endpoint; without it the claimer would never rest."""
    async with claiming(9) as scene:
        scene.pool.breaker.open(scene.clock.now)
        assert await scene.scans_after(scene.claimer.room_again) == 1


async def test_what_others_found_out_is_asked_for_without_a_scan() -> None:
    async with claiming(9) as scene:
        asked = scene.health.asked
        await scene.scans_after(scene.claimer.room_again)
        assert scene.health.asked == asked + 1


async def test_an_endpoint_that_asks_for_patience_keeps_one_batch_here() -> None:
    """Fails when what was claimed before stays, although another replica may have more of its pace."""
    async with claiming(9) as scene:
        assert (scene.queue.left, scene.pool.queue.leases) == (5, 4)
        scene.pool.pace.throttled(ASKED, ASKED - 0.1, 5.0)
        scene.breaker_sync.throttled(scene.pool, 5.0)
        await scene.scans_after(scene.claimer.wake)
        scene.pool.queue.tidy()
        assert (scene.queue.left, scene.pool.queue.leases) == (4, 1)


async def test_what_waits_is_given_back_when_others_were_asked_for_patience() -> None:
    async with claiming(9) as scene:
        scene.health.pause_in = 5.0
        await scene.scans_after(scene.claimer.wake)
        await scene.scans_after(scene.claimer.wake)  # the same pause is no news
        scene.pool.queue.tidy()
        assert (scene.queue.left, scene.pool.queue.leases) == (4, 1)


@pytest.mark.parametrize(("accepted", "held"), [(0, 1), (3, 2), (20, 9)])
async def test_a_pace_holds_what_it_sends_soon(accepted: int, held: int) -> None:
    """Batches of three messages: nothing is known of the pace at first, then four in two seconds, or 26."""
    async with claiming(13) as scene:
        scene.pool.pace.accepted(ASKED - 0.5, accepted)
        scene.pool.pace.throttled(ASKED, ASKED - 0.1, 1.0)
        scene.breaker_sync.throttled(scene.pool, 1.0)
        scene.clock.now += 1.5
        scene.pool.pace.ready(scene.clock.now, 1)  # the pause is over
        await scene.scans_after(scene.claimer.wake)
        scene.pool.queue.tidy()
        assert 13 - 4 - scene.queue.left == held
