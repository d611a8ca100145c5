"""Keeps the ledger partitioned: adds partitions ahead of the mailings to come, and drops those that were emptied.

A partition has the mailings of about a day, so that what is kept for so many days goes as a whole; where a day brings
one mailing, each has its own. Nothing here makes anybody wait for more than a moment: what gets no lock is left for
the next time. A mailing for which no partition was added in time is stored all the same, with the `rest`.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from server.storage.database import Database
from server.storage.queries import load_queries

AHEAD = 4
"""Partitions that are ready for mailings to come."""

FEW = 250
"""From so many partitions on each new one is twice as wide, and so on: statements over all of them stay quick."""

DROPPED_AT_ONCE = 5
"""The most partitions that are dropped in one go."""

_SQL = load_queries("partitions.sql")


class Partitions:
    """The partitions of one database. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_ahead(self) -> int:
        """Add the partitions that are missing ahead; return how many."""
        row = await self._database.fetchrow(*_SQL["outlook"].bind())
        upper, added = row["upper"], 0
        width = max(1, row["pace"]) << row["partitions"] // FEW
        for _ in range(AHEAD - row["ahead"]):
            upper = await self._unless_busy(*_SQL["add_partition"].bind(upper=upper, width=width))
            if upper is None:
                break  # another replica does it, or somebody reads for long
            added += 1
        return added

    async def drop_emptied(self) -> list[str]:
        """Drop partitions whose messages were all removed; return what their names end in."""
        dropped = []
        for row in await self._database.fetch(*_SQL["list_passed"].bind(most=DROPPED_AT_ONCE)):
            done = await self._unless_busy(*_SQL["drop_partition"].bind(suffix=row["suffix"]))
            if done is None:
                break
            dropped += [row["suffix"]] if done else []
        return dropped

    async def _unless_busy(self, statement: str, *arguments: Any) -> Any:
        """Return the value of a statement, None when it would have to wait for a lock."""
        async with self._database.connection() as connection:
            try:
                async with connection.transaction():
                    return await connection.fetchval(statement, *arguments)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                return None
