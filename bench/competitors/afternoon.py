"""The loop a good engineer writes in an afternoon: asyncpg, SKIP LOCKED 100, aiohttp, one update per batch.

The setting is the number of such loops.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg

from bench.competitors.job import Job, Poster, main

_SCHEMA = """
CREATE TABLE outbox (id bigint PRIMARY KEY, done_at timestamptz);
CREATE INDEX outbox_open ON outbox (id) WHERE done_at IS NULL;
"""
_CLAIM = "SELECT id FROM outbox WHERE done_at IS NULL ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED"
_SETTLE = "UPDATE outbox SET done_at = now() WHERE id = ANY($1)"


async def _work(pool: asyncpg.Pool, poster: Poster) -> None:
    async with pool.acquire() as connection:
        while True:
            async with connection.transaction():
                ids = [row[0] for row in await connection.fetch(_CLAIM)]
                if not ids:
                    return
                await asyncio.gather(*(poster.post(message_id) for message_id in ids))
                await connection.execute(_SETTLE, ids)


async def run(job: Job) -> tuple[float, int]:
    """Work the job off and return seconds and recorded outcomes."""
    poster = Poster(job.url, connections=100 * job.setting)
    async with asyncpg.create_pool(job.dsn, min_size=job.setting, max_size=job.setting) as pool:
        await pool.execute(_SCHEMA)
        await pool.copy_records_to_table("outbox", columns=["id"], records=((number,) for number in job.ids))
        await pool.execute("ANALYZE outbox")
        began = time.perf_counter()
        await asyncio.gather(*(_work(pool, poster) for _ in range(job.setting)))
        seconds = time.perf_counter() - began
        recorded = await pool.fetchval("SELECT count(done_at) FROM outbox")
    await poster.close()
    return seconds, recorded


if __name__ == "__main__":
    main(run)
