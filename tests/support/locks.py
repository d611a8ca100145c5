"""Whether sessions of the test's database wait for locks that others hold."""

from __future__ import annotations

import asyncpg

from tests.support.eventually import eventually

_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def blocked(pool: asyncpg.Pool, sessions: int = 1) -> None:
    """Return once at least so many sessions wait for a lock."""
    await eventually(lambda: pool.fetchval(_BLOCKED), lambda count: count >= sessions)


async def unblocked(pool: asyncpg.Pool) -> None:
    """Return once no session waits for a lock any more."""
    await eventually(lambda: pool.fetchval(_BLOCKED), lambda count: count == 0)
