"""Health asks the database only while nobody else gets answers from it."""

from __future__ import annotations

import asyncio

import asyncpg

from server.health import DatabaseWatch
from server.store.database import Database
from tests.support.endpoints import eventually


class CountingDatabase(Database):
    """Counts the questions of health."""

    asked = 0

    async def answers(self, within: float) -> bool | None:
        self.asked += 1
        return await super().answers(within)

    async def so_far(self) -> int:
        return self.asked


async def test_answers_to_others_stand_for_answers_to_health(pool: asyncpg.Pool) -> None:
    silence, database = 0.0, CountingDatabase(pool)

    async def told(up: bool) -> None:
        raise AssertionError("nothing changed")

    async with DatabaseWatch(database, told, lambda: silence, interval=0.05).running():
        await asyncio.sleep(0.3)
        assert database.asked == 0
        silence = 0.05
        await eventually(database.so_far, lambda asked: asked >= 2)


async def test_once_the_database_was_away_health_asks_for_itself(pool: asyncpg.Pool) -> None:
    silence, database, away = 1.0, CountingDatabase(pool), asyncio.Event()

    async def told(up: bool) -> None:
        assert not up
        away.set()

    async with DatabaseWatch(database, told, lambda: silence, interval=0.05).running():
        await pool.close()
        async with asyncio.timeout(10):
            await away.wait()
        silence, asked = 0.0, database.asked
        await eventually(database.so_far, lambda now: now > asked + 1)
