"""A standby for what only reads: lists, exports, reports and previews, as long as it is close behind its primary.

How far behind it is trusts no clock: each second the primary's position in its log is noted, and the standby is as old
as the newest of these that it has replayed. Nothing that decides is ever read here. While nobody reads,
nobody asks; a standby that is late, gone or being promoted costs nothing but its help.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf

import asyncpg

from dispatcher.tasks import in_background
from server.domain.errors import DatabaseUnavailable
from server.domain.turns import Turns
from server.storage.database import Database, ScanDatabase
from server.storage.faults import Fault, classify
from server.storage.queries import load_queries

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two questions how far behind it is."""

IDLE = 60.0
"""Seconds after the last read from which on it is not asked."""

SUSPENDED = 5.0
"""Seconds for which it is left alone after it failed."""

_POSITIONS = 600

_SQL = load_queries("standby.sql")


class Standby:
    """One standby of the primary that `primary` is, read while it is at most `max_lag` seconds behind.

    `database` runs its statements. `lag` is in seconds, infinite while it is not known.
    """

    def __init__(
        self, pool: asyncpg.Pool, primary: Database, max_lag: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        size = int(pool.get_max_size())
        turns = Turns("connections to the standby", size, max(1, size // 2))
        self.database = _StandbyDatabase(pool, turns, self.suspend)
        self._primary = primary
        self._max_lag = max_lag
        self._now = now
        self._positions: deque[tuple[float, int]] = deque(maxlen=_POSITIONS)
        self._replayed: float = -inf
        self._suspended_until = -inf
        self._wanted_until = -inf
        self._wanted = asyncio.Event()

    @property
    def lag(self) -> float:
        """How old what it shows may be, in seconds; infinite while that is not known."""
        return self._now() - self._replayed

    def is_fresh(self) -> bool:
        """Return whether it may be read now; a request makes it be asked."""
        now = self._now()
        self._wanted_until = now + IDLE
        self._wanted.set()
        return now >= self._suspended_until and self.lag <= self._max_lag

    def suspend(self) -> None:
        """Leave it alone for a while: it failed."""
        self._suspended_until = self._now() + SUSPENDED
        self._replayed = -inf

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look after it inside the block."""
        async with in_background(self._run(), "standby"):
            yield

    async def _run(self) -> None:
        while True:
            if self._now() > self._wanted_until:
                self._wanted.clear()
                self._replayed = -inf
                await self._wanted.wait()
            try:
                await self.poll()
            except DatabaseUnavailable:
                self.suspend()
            except Exception:
                log.exception("the standby could not be asked and will be again")
                self.suspend()
            await asyncio.sleep(INTERVAL)

    async def poll(self) -> None:
        """Find out how far behind it is. Raise DatabaseUnavailable."""
        asked = self._now()
        position = (await self._primary.fetchrow(*_SQL["position"].bind()))["position"]
        self._positions.append((asked, position))
        row = await self.database.fetchrow(*_SQL["replayed"].bind())
        if row["position"] is None:  # it is no standby, or not any more
            self.suspend()
            return
        for noted, reached in reversed(self._positions):
            if reached <= row["position"]:
                self._replayed = noted
                break


class _StandbyDatabase(ScanDatabase):
    """Statements on the standby. One that fails there is to be repeated, and the standby left alone for a while."""

    def __init__(self, pool: asyncpg.Pool, turns: Turns, failed: Callable[[], None]) -> None:
        super().__init__(pool, 5.0, turns)
        self._failed = failed

    def _unavailable(self, error: Exception) -> Exception | None:
        # A statement that hindered the replay was ended there, as if it had lost a race.
        unavailable = DatabaseUnavailable() if classify(error) is Fault.RACE else super()._unavailable(error)
        if isinstance(unavailable, DatabaseUnavailable):
            self._failed()
        return unavailable
