"""The ledger that counts what it records, for the metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from dispatcher.counters import Counters
from dispatcher.model.records import ClaimedBatch, FrequencyCap, Mailing
from dispatcher.ports import Render, Settled
from server.storage.work_queue import Pool, PostgresLedger


class InstrumentedQueue(PostgresLedger):
    """A ledger on Postgres whose claims and settles show in a tally, once they are written.

    A settle that was written while its answer got lost is not counted: the ledger is exact,
    the tally is for watching.
    """

    def __init__(self, pool: Pool, replica_id: UUID, cap: FrequencyCap | None, counters: Counters) -> None:
        super().__init__(pool, replica_id, cap)
        self._counters = counters

    async def claim(
        self, mailing: Mailing, bucket: int, most: int, lease: float, render: Render | None
    ) -> list[ClaimedBatch]:
        """Claim, and count the batches."""
        batches = await super().claim(mailing, bucket, most, lease, render)
        self._counters.claimed += len(batches)
        return batches

    async def settle(
        self, batch: ClaimedBatch, endpoint: str, outcomes: Sequence[Settled], done: bool, kept: Sequence[int] = ()
    ) -> bool:
        """Settle, and count the outcomes unless the batch was lost."""
        began = time.perf_counter()
        held = await super().settle(batch, endpoint, outcomes, done, kept)
        if held:
            self._counters.settled(endpoint, outcomes, time.perf_counter() - began)
        else:
            self._counters.lost += 1
        return held
