"""procrastinate working its queue off and keeping the finished jobs. The setting is its concurrency."""

from __future__ import annotations

import logging
import time

import asyncpg
import procrastinate  # type: ignore[import-not-found] # lives in an environment of its own

from bench.competitors.job import Job, Poster, main

_CHUNK = 1_000


async def run(job: Job) -> tuple[float, int]:
    """Work the job off and return seconds and recorded outcomes."""
    # It warns of an app made in the main module, which matters to workers in other processes.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    poster = Poster(job.url, connections=job.setting)
    connector = procrastinate.PsycopgConnector(conninfo=job.dsn, min_size=4, max_size=min(job.setting, 32))
    app = procrastinate.App(connector=connector)

    async def deliver(message_id: int) -> None:
        await poster.post(message_id)

    task = app.task(name="deliver")(deliver)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, job.messages, _CHUNK):
            await task.batch_defer_async(*({"message_id": number} for number in job.ids[start : start + _CHUNK]))
        await _execute(job.dsn, "ANALYZE")
        began = time.perf_counter()
        await app.run_worker_async(
            wait=False, concurrency=job.setting, install_signal_handlers=False, delete_jobs="never"
        )
        seconds = time.perf_counter() - began
    await poster.close()
    recorded = await _execute(job.dsn, "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'")
    return seconds, recorded


async def _execute(dsn: str, statement: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(statement) or 0)
    finally:
        await connection.close()


if __name__ == "__main__":
    main(run)
