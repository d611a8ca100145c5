"""A work queue that counts what is claimed and recorded, for the metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dispatcher.counters import Counters
from dispatcher.model.records import ClaimedBatch, Mailing, OpenWork
from dispatcher.ports import Render, Settled, WorkQueue


class InstrumentedQueue:
    """Counts the claims and settlements of the `queue` behind it, once they are written; implements `ports.WorkQueue`.

    A settlement that was written while its answer got lost is not counted: the database is exact,
    the counters are for watching.
    """

    def __init__(self, queue: WorkQueue, counters: Counters) -> None:
        self._queue = queue
        self._counters = counters

    async def scan(self) -> list[OpenWork]:
        return await self._queue.scan()

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        return await self._queue.definitions(ids)

    async def claim(
        self, mailing: Mailing, bucket: int, most: int, lease: float, render: Render | None
    ) -> list[ClaimedBatch]:
        """Claim, and count the batches."""
        batches = await self._queue.claim(mailing, bucket, most, lease, render)
        self._counters.claimed += len(batches)
        return batches

    async def release_orphans(self, known: Sequence[int]) -> None:
        await self._queue.release_orphans(known)

    async def settle(
        self, batch: ClaimedBatch, endpoint: str, outcomes: Sequence[Settled], done: bool, kept: Sequence[int] = ()
    ) -> bool:
        """Settle, and count the outcomes unless the batch was lost."""
        began = time.perf_counter()
        held = await self._queue.settle(batch, endpoint, outcomes, done, kept)
        if held:
            self._counters.settled(endpoint, outcomes, time.perf_counter() - began)
        else:
            self._counters.lost += 1
        return held
