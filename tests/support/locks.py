"""Locks that a test holds against the service, and the sessions that wait for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.support.eventually import eventually

_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


CLIENTS = "LOCK TABLE clients IN ACCESS EXCLUSIVE MODE"
"""Lets every call wait that reads clients."""


@asynccontextmanager
async def holding(pool: asyncpg.Pool, lock: str) -> AsyncIterator[asyncpg.Connection]:
    """Hold the locks of a statement while the block runs; lend the connection, whose changes are committed then."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(lock)
        yield connection


def bucket_lock(number: int) -> str:
    """Return the statement that locks a bucket, as settling and retrying do."""
    return f"SELECT FROM buckets WHERE bucket = {number} FOR UPDATE"


async def blocked(pool: asyncpg.Pool, sessions: int = 1) -> None:
    """Return once at least so many sessions wait for a lock."""
    await eventually(lambda: pool.fetchval(_BLOCKED), lambda count: count >= sessions)


async def unblocked(pool: asyncpg.Pool) -> None:
    """Return once no session waits for a lock any more."""
    await eventually(lambda: pool.fetchval(_BLOCKED), lambda count: count == 0)
