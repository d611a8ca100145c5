"""PgQueuer draining its queue; it records outcomes in its log table. The setting is its batch size."""

from __future__ import annotations

import time

import asyncpg
from pgqueuer.db import AsyncpgPoolDriver  # type: ignore[import-not-found] # lives in an environment of its own
from pgqueuer.qm import QueueManager  # type: ignore[import-not-found]
from pgqueuer.queries import Queries  # type: ignore[import-not-found]
from pgqueuer.types import QueueExecutionMode  # type: ignore[import-not-found]

from bench.competitors.job import Job, Poster, main

_CHUNK = 5_000


async def run(job: Job) -> tuple[float, int]:
    """Work the job off and return seconds and recorded outcomes."""
    poster = Poster(job.url, connections=1_000)

    async def deliver(queued: object) -> None:
        await poster.post(int(queued.payload))  # type: ignore[attr-defined]

    async with asyncpg.create_pool(job.dsn, min_size=4, max_size=8) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        manager = QueueManager(queries)
        manager.entrypoint("deliver")(deliver)
        for start in range(0, job.messages, _CHUNK):
            payloads = [str(message_id).encode() for message_id in job.ids[start : start + _CHUNK]]
            await queries.enqueue(["deliver"] * len(payloads), payloads, [0] * len(payloads))
        await pool.execute("ANALYZE")
        began = time.perf_counter()
        await manager.run(mode=QueueExecutionMode.drain, batch_size=job.setting)
        seconds = time.perf_counter() - began
        recorded = await pool.fetchval("SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'")
    await poster.close()
    return seconds, recorded


if __name__ == "__main__":
    main(run)
