"""Work goes together, in turn of those who ask, and nobody gets what was done before they asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from server.domain.principals import set_source
from server.storage import gathered
from server.storage.gathered import MOST, Act, Gathered


class Table:
    """Values that are read when the test says so."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.value = 0
        self.sessions = 0
        self.turn = asyncio.Event()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Act[int, int]]:
        self.sessions += 1
        yield self.read

    async def read(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.asked.append([*keys])
        value = self.value
        await self.turn.wait()
        if -1 in keys:
            raise ValueError
        return {key: value for key in keys if key}


async def begun(*reads: asyncio.Task[int | None]) -> list[asyncio.Task[int | None]]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [*reads]


async def test_what_is_asked_meanwhile_goes_together_and_sees_what_was_written() -> None:
    """Fails when a call is given the answer of a statement that began before it."""
    table = Table()
    reads = Gathered(table.session)
    first = await begun(asyncio.create_task(reads.get(1)))
    table.value = 1
    others = await begun(*(asyncio.create_task(reads.get(key)) for key in (1, 2, 2, 0)))
    table.turn.set()
    assert await asyncio.gather(*first) == [0]
    assert await asyncio.gather(*others) == [1, 1, 1, None]
    assert table.asked == [[1], [1, 2, 0]]


async def test_an_error_is_that_of_those_who_were_asked_for_together() -> None:
    table = Table()
    reads = Gathered(table.session)
    first = await begun(asyncio.create_task(reads.get(1)))
    bad = await begun(*(asyncio.create_task(reads.get(key)) for key in (2, -1)))
    bad[0].cancel()
    table.turn.set()
    assert await asyncio.gather(*first) == [0]
    with pytest.raises(ValueError):
        await bad[1]
    assert await reads.get(3) == 0


async def test_one_statement_has_so_many_keys_and_no_more() -> None:
    table = Table()
    table.turn.set()
    reads = Gathered(table.session)
    assert await asyncio.gather(*(reads.get(key) for key in range(1, MOST + 2))) == [0] * (MOST + 1)
    assert [len(keys) for keys in table.asked] == [MOST, 1]


async def test_who_asks_for_much_does_not_go_before_others() -> None:
    """Fails when the next statement takes what was asked first."""
    table = Table()
    reads = Gathered(table.session, most=4)

    async def get(name: str, key: int) -> int | None:
        set_source(name)
        return await reads.get(key)

    first = await begun(asyncio.create_task(get("greedy", 1)))
    greedy = [asyncio.create_task(get("greedy", key)) for key in range(2, 8)]
    others = await begun(*greedy, asyncio.create_task(get("modest", 8)), asyncio.create_task(get("third", 9)))
    table.turn.set()
    await asyncio.gather(*first, *others)
    assert table.asked == [[1], [2, 8, 9, 3], [4, 5, 6, 7]]


async def test_acts_that_follow_each_other_closely_share_a_session() -> None:
    table = Table()
    table.turn.set()
    reads = Gathered(table.session, linger=lambda: 60.0)
    assert [await reads.get(key) for key in (1, 2, 1)] == [0, 0, 0]
    assert (table.asked, table.sessions) == ([[1], [2], [1]], 1)


async def test_a_session_ends_after_its_time_also_while_much_is_asked() -> None:
    """Fails when a session goes on as long as there is something to do."""
    table = Table()
    table.turn.set()
    reads = Gathered(table.session, most=1)
    assert await asyncio.gather(*(reads.get(key) for key in (1, 2, 3))) == [0, 0, 0]
    assert table.sessions == 3


async def test_an_error_ends_the_session_and_not_the_next_one() -> None:
    table = Table()
    table.turn.set()
    reads = Gathered(table.session, linger=lambda: 60.0)
    with pytest.raises(ValueError):
        await reads.get(-1)
    assert (await reads.get(1), table.sessions) == (0, 2)


async def test_where_several_ask_the_next_act_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the first to come begins an act of their own, though others come with them."""
    monkeypatch.setattr(gathered, "LONGEST_PACE", 0.2)
    table = Table()
    table.turn.set()
    reads = Gathered(table.session, linger=lambda: 60.0, pace=0.2)
    await asyncio.gather(reads.get(1), reads.get(1))
    third = await begun(asyncio.create_task(reads.get(1)))
    fourth = asyncio.create_task(reads.get(2))
    assert await asyncio.gather(*third, fourth) == [0, 0]
    assert table.asked == [[1], [1, 2]]


async def test_who_asks_alone_does_not_wait() -> None:
    """Fails when every act waits: two callers who do not know of each other would meet."""
    table = Table()
    table.turn.set()
    reads = Gathered(table.session, linger=lambda: 60.0, pace=60.0)
    assert await reads.get(1) == 0
    first = await begun(asyncio.create_task(reads.get(1)))
    assert await asyncio.wait_for(asyncio.gather(*first, reads.get(2)), 20) == [0, 0]
    assert table.asked == [[1], [1], [2]]
