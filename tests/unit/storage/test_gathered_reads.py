"""Reads go together, and nobody gets what was read before they asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from server.storage.gathered_reads import MOST, GatheredReads


class Table:
    """Values that are read when the test says so."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.value = 0
        self.turn = asyncio.Event()

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
    reads = GatheredReads(table.read)
    first = await begun(asyncio.create_task(reads.get(1)))
    table.value = 1
    others = await begun(*(asyncio.create_task(reads.get(key)) for key in (1, 2, 2, 0)))
    table.turn.set()
    assert await asyncio.gather(*first) == [0]
    assert await asyncio.gather(*others) == [1, 1, 1, None]
    assert table.asked == [[1], [1, 2, 0]]


async def test_an_error_is_that_of_those_who_were_asked_for_together() -> None:
    table = Table()
    reads = GatheredReads(table.read)
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
    reads = GatheredReads(table.read)
    assert await asyncio.gather(*(reads.get(key) for key in range(1, MOST + 2))) == [0] * (MOST + 1)
    assert [len(keys) for keys in table.asked] == [MOST, 1]
