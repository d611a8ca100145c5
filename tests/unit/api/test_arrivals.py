"""Places for requests that arrive: few, in turn among their sources, and not for the slow while others wait."""

from __future__ import annotations

import asyncio

import pytest

from server.api.interceptors.arrivals import ArrivalLimits, Arrivals
from server.domain.errors import BodyTooSlow, TooManyWaiting
from tests.support.eventually import eventually

PATIENT = ArrivalLimits(places=3, places_per_source=2, waiting=4, waiting_per_source=3, patience=60)
HASTY = ArrivalLimits(places=3, places_per_source=2, patience=0.01)


class Bodies:
    """Requests that arrive when the test lets them."""

    def __init__(self, limits: ArrivalLimits) -> None:
        self.arrivals = Arrivals(limits)
        self.begun: list[str] = []
        self.arrived = asyncio.Event()

    def send(self, source: str) -> asyncio.Task[bytes]:
        async def read() -> bytes:
            self.begun.append(source)
            await self.arrived.wait()
            return source.encode()

        return asyncio.create_task(self.arrivals.read(source, read))

    async def begin(self, *sources: str) -> list[asyncio.Task[bytes]]:
        sent = [self.send(one) for one in sources]
        for _ in range(3):
            await asyncio.sleep(0)
        return sent


async def test_a_source_gets_its_places_and_a_replica_no_more_than_all() -> None:
    bodies = Bodies(PATIENT)
    sent = await bodies.begin("a", "a", "a", "b", "b", "c")
    assert bodies.begun == ["a", "a", "b"]
    bodies.arrived.set()
    assert await asyncio.gather(*sent) == [b"a", b"a", b"a", b"b", b"b", b"c"]


async def test_sources_wait_in_turn_and_not_in_the_order_of_their_calls() -> None:
    """Fails with one queue for all: the many of one source stand in front of the single one of another."""
    bodies = Bodies(PATIENT)
    first = await bodies.begin("a", "a", "b")
    waiting = await bodies.begin("a", "a", "c")
    first[0].cancel()
    first[2].cancel()
    await asyncio.wait([first[0], first[2]])
    await eventually(lambda: bodies.begun, lambda begun: sorted(begun[3:]) == ["a", "c"])
    bodies.arrived.set()
    assert await asyncio.gather(*waiting) == [b"a", b"a", b"c"]


async def test_too_many_that_wait_are_told_so() -> None:
    bodies = Bodies(PATIENT)
    sent = await bodies.begin(*"aa", *"aaa")
    with pytest.raises(TooManyWaiting):
        await bodies.send("a")
    sent += await bodies.begin("b", "b")
    with pytest.raises(TooManyWaiting):
        await bodies.send("c")
    bodies.arrived.set()
    await asyncio.gather(*sent)


async def test_a_slow_reader_gives_way_to_the_next() -> None:
    """It is one of the source that holds most; another source's only reader stays."""
    bodies = Bodies(HASTY)
    slow = await bodies.begin("a", "a", "b")
    waiting = await bodies.begin("c")
    done, _ = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
    assert [type(one.exception()) for one in done] == [BodyTooSlow]
    assert not slow[2].done()
    bodies.arrived.set()
    assert await waiting[0] == b"c"
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_reader_that_takes_too_long_is_given_up_though_nobody_waits() -> None:
    bodies = Bodies(ArrivalLimits(longest=0.05))
    with pytest.raises(BodyTooSlow):
        await bodies.send("a")


async def test_callers_that_leave_while_they_wait_leave_nothing() -> None:
    """Fails when a place or a count of waiting ones is kept for them."""
    bodies = Bodies(PATIENT)
    for _ in range(5):
        sent = await bodies.begin("a", "a", "a", "b", "b")
        for one in sent:
            one.cancel()
        await asyncio.gather(*sent, return_exceptions=True)
    bodies.arrived.set()
    assert await asyncio.gather(*await bodies.begin("a", "a", "b")) == [b"a", b"a", b"b"]
