"""A reader of messages that is held up: what the ring drops meanwhile, it gets from the table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from server.domain.change_feed import ChangeQuery, Entry
from server.domain.resume_tokens import Tokens
from server.storage.change_feed import ChangePage, Poll
from server.watch.change_pages import ChangePages
from server.watch.change_reader import ChangeReader
from server.watch.change_ring import ChangeRing
from server.watch.change_tailer import ChangeTailer

QUERY = ChangeQuery()


class Table:
    """The change feed of one bucket, and a ring of the last three entries, one change each."""

    readers = 1

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.ring = ChangeRing(Poll(1, (0,), (0,), (), False), changes=3)

    def write(self, count: int) -> None:
        begin = len(self._entries)
        new = [
            Entry(0, seq, 1, datetime(2026, 1, 1, tzinfo=UTC), [seq], [2])
            for seq in range(begin + 1, begin + count + 1)
        ]
        self._entries += new
        self.ring.extend(Poll(1, (len(self._entries),), (0,), new, False))

    # What a reader needs of a tailer and of pages.

    @contextmanager
    def reading(self) -> Iterator[None]:
        yield

    async def fresh(self) -> ChangeRing:
        return self.ring

    async def read(self, timeline: int, bucket: int, after: int, mailing_id: int) -> ChangePage:
        await asyncio.sleep(0)
        entries = self._entries[after : after + 2]
        return ChangePage(entries, after + len(entries), 0, len(self._entries))


async def read_all(before: int, meanwhile: int) -> list[int]:
    """Read `before` entries; after each response write `meanwhile` more, until there are 40."""
    table = Table()
    table.write(before)
    reader = ChangeReader(cast("ChangeTailer", table), cast("ChangePages", table), QUERY, checkpoint=60.0)
    got: list[int] = []
    async for batch in reader.batches(Tokens(UUID(int=1), 1, QUERY), "", from_start=True):
        got += [seq for entry in batch.entries for seq in entry.client_ids]
        if table.ring.heads[0] < 40:
            table.write(meanwhile)
        elif got and got[-1] == table.ring.heads[0]:
            return got
    raise AssertionError("the stream ended")


async def test_nothing_is_lost_however_far_the_ring_moves_meanwhile() -> None:
    """Fails when a reader that has come up to the ring takes its place in it after sending what it read."""
    for before in range(12):
        for meanwhile in range(1, 9):
            async with asyncio.timeout(10):
                got = await read_all(before, meanwhile)
            assert got == list(range(1, len(got) + 1)), (before, meanwhile)
