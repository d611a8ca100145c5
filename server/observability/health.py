"""Health of this replica: whether its database answers.

One small statement every five seconds, however often health is asked for, and none as long as this process
writes anyway. A database that is
merely busy counts as available: taking a replica away would only make the others busier.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dispatcher.tasks import in_background
from server.storage.database import Database

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two checks: an idle service stays quiet."""

RETRY = 1.0
"""Seconds until the next check after one that failed."""

PATIENCE = 3.0
"""Seconds after which a check has failed."""

TRIES = 2
"""Checks in a row that must fail: a single broken connection is no outage."""


class DatabaseWatch:
    """Knows whether the database answers; `notify` is called with every change.

    `written` returns when this process last wrote something (monotonic): nothing is asked for `interval` seconds
    from then on, as long as callers would get a connection that is open. Others may have written on the last one.
    """

    def __init__(
        self,
        database: Database,
        notify: Callable[[bool], Awaitable[None]] | None = None,
        interval: float = INTERVAL,
        written: Callable[[], float] = lambda: float("-inf"),
    ) -> None:
        self.up = True
        self._database = database
        self._notify = notify
        self._interval = interval
        self._written = written
        self._failed = 0

    @property
    def failures(self) -> int:
        """How often the database did not answer."""
        return self._database.failures

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check inside the block."""
        async with in_background(self._run(), "database watch"):
            yield

    async def _run(self) -> None:
        while True:
            try:
                await self._check()
            except Exception:
                log.exception("the database check failed and will be repeated")
            await asyncio.sleep(min(self._interval, RETRY) if self._failed else self._known_for() or self._interval)

    def _known_for(self) -> float:
        """Return for how many seconds it need not be asked, since something was written."""
        if self._failed or not self.up or not self._database.has_idle_connection:
            return 0.0
        return max(0.0, self._written() + self._interval - time.monotonic())

    async def _check(self) -> None:
        answered = True if self._known_for() else await self._database.answers(PATIENCE)
        if answered is None:
            return
        self._failed = 0 if answered else self._failed + 1
        up = answered or (self.up and self._failed < TRIES)
        if up != self.up:
            self.up = up
            log.log(
                logging.INFO if up else logging.ERROR, "the database answers again" if up else "the database is away"
            )
            if self._notify is not None:
                await self._notify(up)
