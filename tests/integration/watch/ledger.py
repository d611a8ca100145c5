"""Mailings whose batches are settled when a test says so, by the dispatcher's own ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

import asyncpg

from dispatcher.model.batches import ClaimedBatch
from dispatcher.model.mailings import Mailing
from dispatcher.model.outcomes import Settlement
from dispatcher.model.states import Status
from dispatcher.retry_policy import OPEN_BATCHES, unsent
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.support.ledger import add_mailing

BUCKETS = 16


class Work:
    """Makes work and does it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())

    async def mailing(self, batch_size: int = 10) -> Mailing:
        """Return a running mailing to all clients, expanded into batches of this size."""
        mailing_id = await add_mailing(self._pool)
        await self._storage.plan.start_due()
        (expansion,) = [
            one for one in await self._storage.plan.expandable(OPEN_BATCHES) if one.mailing_id == mailing_id
        ]
        for bucket in expansion.positions:
            await self._storage.plan.expand(expansion, bucket, batch_size, 10_000)
        await self._storage.plan.expanded(1.0)
        return (await self._storage.queue.definitions([mailing_id]))[mailing_id]

    async def claim(self, mailing: Mailing, bucket: int, most: int = 1000) -> Sequence[ClaimedBatch]:
        """Return open batches of one bucket, leased."""
        return await self._storage.queue.claim(mailing, bucket, most, 60.0, None)

    async def claim_all(self, mailing: Mailing) -> list[ClaimedBatch]:
        """Return all open batches, leased."""
        return [batch for bucket in range(BUCKETS) for batch in await self.claim(mailing, bucket)]

    async def settle(self, batch: ClaimedBatch, *statuses: Status) -> None:
        """End the batch's messages with these statuses in turn, DELIVERED by default."""
        ends = statuses or (Status.DELIVERED,)
        outcomes = [
            (one.client_id, one.attempts, unsent(ends[n % len(ends)], 0))  # type: ignore[arg-type]
            for n, one in enumerate(batch.recipients)
        ]
        assert await self._storage.queue.settle(Settlement.of(batch, "default", outcomes, True))

    async def complete(self, mailing: Mailing) -> None:
        """End the mailing, as the planner does."""
        assert await self._storage.plan.complete([mailing.id]) == [mailing.id]

    async def settled(self, mailing_id: int) -> Counter[tuple[int, int]]:
        """Return id and status of every settled message, as the ledger has them."""
        rows = await self._pool.fetch(
            "SELECT mailing_id << 32 | client_id AS id, status FROM ledger WHERE mailing_id = $1 AND status <> 1",
            mailing_id,
        )
        return Counter((row["id"], row["status"]) for row in rows)


async def append(pool: asyncpg.Pool, mailing_id: int, client_id: int, status: int, clients: int = 1) -> None:
    """Append an entry to the change feed, as a retry or a settle does."""
    ids = [client_id + n * BUCKETS for n in range(clients)]
    await pool.execute(
        "WITH tick AS (UPDATE buckets SET journal_seq = journal_seq + 1 WHERE bucket = $1 RETURNING journal_seq)"
        " INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)"
        " SELECT $1, journal_seq, $2, $3, ARRAY[$4::smallint] FROM tick",
        client_id % BUCKETS,
        mailing_id,
        ids,
        status,
    )
