"""Whether this replica can do its work: its database answers, and it is not being stopped.

One small question every five seconds, whoever asks for health and however often. A database that is
merely busy counts as there: taking a replica away would only make the others busier.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dispatcher.tasks import in_background
from server.storage.database import Database

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two questions: an idle service is to stay quiet."""

AGAIN = 1.0
"""Seconds until the next one after a question that failed."""

PATIENCE = 3.0
"""Seconds after which an answer comes too late."""

TRIES = 2
"""Questions in a row that must fail: a single broken connection is no outage."""


class DatabaseWatch:
    """Knows whether the database answers; `told` hears of every change."""

    def __init__(self, database: Database, told: Callable[[bool], Awaitable[None]], interval: float = INTERVAL) -> None:
        self.up = True
        self._database = database
        self._told = told
        self._interval = interval
        self._failed = 0

    @property
    def failures(self) -> int:
        """How often the database did not answer."""
        return self._database.failures

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask inside the block."""
        async with in_background(self._run(), "database watch"):
            yield

    async def _run(self) -> None:
        while True:
            try:
                await self._ask()
            except Exception:
                log.exception("the watch over the database failed and goes on")
            await asyncio.sleep(min(self._interval, AGAIN) if self._failed else self._interval)

    async def _ask(self) -> None:
        answered = await self._database.answers(PATIENCE)
        if answered is None:
            return
        self._failed = 0 if answered else self._failed + 1
        up = answered or (self.up and self._failed < TRIES)
        if up != self.up:
            self.up = up
            log.log(
                logging.INFO if up else logging.ERROR, "the database answers again" if up else "the database is away"
            )
            await self._told(up)
