"""Two replicas and a clock that the test turns: what schedules make on Postgres is what a model of them makes.

Replicas poll at once or alone, or neither does for hours. One dies before its transaction commits, or after; another
takes its place. Seen to fail: when the first of several missed occurrences makes a mailing instead of the last, and
when the occurrence that waits is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

import asyncpg
import pytest

from server.api.encoding.schedules import TEMPLATES
from server.config import Settings
from server.domain.schedules import Overlap
from server.schedules import MailingMaker
from server.schedules.maker import BUSY
from server.storage.database import Database
from server.storage.pool import open_pool
from server.storage.schedules import ScheduleQueue
from tests.simulation.comparison import SET_UP
from tests.simulation.world import EPOCH

RUNS, STEPS = 5, 40
MINUTE = timedelta(minutes=1)


class Died(BaseException):
    """A process was killed."""


class MortalDatabase(Database):
    """A database as one process knows it, which is killed in its next transaction: `before` or `after` the commit."""

    dies = ""

    @asynccontextmanager
    async def transaction(self, patience: float | None = None) -> AsyncIterator[asyncpg.Connection]:
        async with super().transaction(patience) as connection:
            yield connection
            if self.dies == "before":
                raise Died
        if self.dies == "after":
            raise Died


@dataclass
class Model:
    """A schedule that is due every so many minutes. `open` has the occurrences whose mailings are not over."""

    every: int
    overlap: Overlap
    catch_up: timedelta
    polled_at: datetime = EPOCH
    waiting: datetime | None = None
    made: list[datetime] = field(default_factory=list)
    open: set[datetime] = field(default_factory=set)

    def poll(self, now: datetime) -> None:
        """Do what comes of all minutes since the last poll."""
        minutes = (now - self.polled_at) // MINUTE + 2
        first = self.polled_at.replace(second=0, microsecond=0)
        passed = [first + n * MINUTE for n in range(minutes) if self.polled_at < first + n * MINUTE <= now]
        due = [one for one in passed if one.minute % self.every == 0]
        self.polled_at = now
        timely = [one for one in due if one >= now - max(self.catch_up, MINUTE)]
        if timely and self.open and self.overlap is Overlap.SKIP:
            return
        if timely:
            self.waiting = timely[-1]
        if self.waiting and (not self.open or self.overlap is Overlap.ALLOW):
            self.made.append(self.waiting)
            self.open.add(self.waiting)
            self.waiting = None


class Play:
    """Draws what happens to the schedules of `models` in Postgres and in the models."""

    def __init__(self, seed: int, pool: asyncpg.Pool) -> None:
        self._random = Random(seed)
        self._pool = pool
        self._now = EPOCH
        self._replicas = [self._replica() for _ in range(2)]
        self._models = {
            number: Model(
                self._random.choice([1, 7, 30]), overlap, self._random.choice([MINUTE, 20 * MINUTE, 90 * MINUTE])
            )
            for number, overlap in enumerate(Overlap, 1)
        }

    def _replica(self) -> tuple[MortalDatabase, MailingMaker]:
        database = MortalDatabase(self._pool)
        return database, MailingMaker(ScheduleQueue(database, TEMPLATES))

    async def run(self) -> None:
        await self._pool.execute("TRUNCATE schedules, mailings, expansions, log CASCADE")
        await self._turn(1.0)
        for number, model in self._models.items():
            model.polled_at = self._now
            await self._pool.execute(
                "INSERT INTO schedules (id, template, cron, timezone, overlap, catch_up, next_at)"
                """ VALUES ($1, '{"text": "Hi"}', $2, 'UTC', $3, $4, $5)""",
                *(number, f"*/{model.every} * * * *", model.overlap, model.catch_up, EPOCH + model.every * MINUTE),
            )
        for _ in range(STEPS):
            await self._turn(self._random.choice([1.0, 20.0, 59.5, 300.0, 1800.0, 20_000.0]))
            await self._end_some()
            await self._poll()
            await self._compare()

    async def _turn(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        await self._pool.execute("UPDATE simulation.clock SET moment = $1", self._now)

    async def _end_some(self) -> None:
        for number, model in self._models.items():
            over = [one for one in model.open if self._random.random() < 0.4]
            model.open.difference_update(over)
            end = "UPDATE mailings SET state = 4 WHERE schedule_id = $1 AND occurrence_at = ANY ($2)"
            await self._pool.execute(end, number, over)

    async def _poll(self) -> None:
        """Let no replica poll, one or both; what one leaves that is killed another one does, now or later."""
        polling = self._random.choice([[], [0], [1], [0, 1], [0, 1]])
        for index in polling:
            self._replicas[index][0].dies = self._random.choice(["", "", "before", "after"])
        survives = [index for index in polling if not self._replicas[index][0].dies]
        ends = await asyncio.gather(*(self._one_polls(index) for index in polling))
        if survives:
            for model in self._models.values():
                model.poll(self._now)
        elif any(ends):
            # Whether anything was made depends on when they were killed: another one does the rest.
            self._replicas[0] = self._replica()
            await self._one_polls(0)
            for model in self._models.values():
                model.poll(self._now)

    async def _one_polls(self, index: int) -> bool:
        """Poll until nothing is due; return whether the replica died, in whose place there is a new one."""
        _, maker = self._replicas[index]
        try:
            while await maker.poll() <= BUSY:
                pass  # another replica has what is due
        except Died:
            self._replicas[index] = self._replica()
            return True
        return False

    async def _compare(self) -> None:
        for number, model in self._models.items():
            rows = await self._pool.fetch(
                "SELECT occurrence_at FROM mailings WHERE schedule_id = $1 ORDER BY occurrence_at", number
            )
            assert [row["occurrence_at"] for row in rows] == model.made, f"{model} at {self._now}"


@pytest.fixture
async def clocked_pool(database_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    """Yield connections to a database whose time the test turns."""
    connection = await asyncpg.connect(database_dsn)
    await connection.execute(SET_UP)
    await connection.close()
    logging.disable(logging.CRITICAL)
    async with open_pool(database_dsn, Settings(), 4) as pool:
        yield pool
    logging.disable(logging.NOTSET)


async def test_schedules_make_what_the_model_makes_whatever_dies(clocked_pool: asyncpg.Pool) -> None:
    for seed in range(RUNS):
        await Play(seed, clocked_pool).run()
