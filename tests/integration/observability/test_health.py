"""Whether the database answers, found out without asking more than is needed."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from server.observability.health import DatabaseWatch
from server.storage.database import Database
from tests.support.eventually import eventually

INTERVAL = 0.2


class Asked(Database):
    """A database that counts how often it was asked whether it answers."""

    asked = 0

    async def answers(self, within: float) -> bool | None:
        self.asked += 1
        return await super().answers(within)


async def nobody(up: bool) -> None:
    """Want to know nothing."""


async def test_nothing_is_asked_while_this_process_writes(pool: asyncpg.Pool) -> None:
    database, looked = Asked(pool), 0

    def written() -> float:
        nonlocal looked
        looked += 1
        return time.monotonic()

    async with DatabaseWatch(database, nobody, INTERVAL, written).running():
        await eventually(lambda: asyncio.sleep(0, looked), lambda times: times > 6)
    assert database.asked == 0


async def test_it_is_asked_where_callers_would_have_to_connect(database_dsn: str) -> None:
    """Somebody writes on a connection of their own: that says nothing of callers who may get none."""
    async with asyncpg.create_pool(database_dsn, min_size=0, max_size=1) as pool:
        database = Asked(pool)
        async with DatabaseWatch(database, nobody, INTERVAL, time.monotonic).running():
            await eventually(lambda: asyncio.sleep(0, database.asked), bool)


async def test_it_is_asked_once_nothing_was_written_for_the_interval(pool: asyncpg.Pool) -> None:
    """Fails when it is asked an interval after the last look, instead of after the last write."""
    database, began = Asked(pool), time.monotonic()
    async with DatabaseWatch(database, nobody, INTERVAL, lambda: began).running():
        await eventually(lambda: asyncio.sleep(0, database.asked), bool)
        assert time.monotonic() - began < 2 * INTERVAL
