"""Removes messages that nobody can see any more, of any number.

Whose messages go is decided elsewhere, in a transaction that hides them and notes it here: a mailing is deleted, or
keeps only its counters and report. From then on this ends what was begun, in short transactions, on any replica and
after any crash. Messages that have a partition for themselves go at once, and with hardly any WAL.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import asyncpg

from server.storage.database import Database
from server.storage.queries import load_queries

STEP = 5_000
"""The most messages that one transaction removes: some 100 ms."""

_SQL = load_queries("removals.sql")
_BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


@dataclass(frozen=True, slots=True)
class Removed:
    """How many messages of a mailing were removed, and how many remain."""

    messages: int
    remaining: int


class Removals:
    """Carries removals out. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def adopt_leftovers(self) -> None:
        """Take over what the release before this one left of deletions."""
        await self._database.execute(*_SQL["adopt_leftovers"].bind())

    async def pending(self) -> list[int]:
        """Return the mailings whose messages are still to be removed, the oldest first."""
        return [row["mailing_id"] for row in await self._database.fetch(*_SQL["list_removals"].bind(mailing_id=0))]

    async def remains(self, mailing_id: int) -> bool:
        """Return whether messages of this mailing are still to be removed."""
        return bool(await self._database.fetch(*_SQL["list_removals"].bind(mailing_id=mailing_id)))

    async def remove(self, mailing_id: int, within: float = float("inf"), considerate: bool = True) -> Removed:
        """Remove what is left of a mailing's messages, or as many as can be within so many seconds, and one more.

        When `considerate`, pause as long as each step took. Do nothing where another replica is at it.
        """
        rows = await self._database.fetch(*_SQL["list_removals"].bind(mailing_id=mailing_id))
        if not rows:
            return Removed(0, 0)
        before: int = rows[0]["remaining"]
        keeps_report: bool = rows[0]["keeps_report"]
        remaining = await self._empty(mailing_id, before)
        give_up_at = time.monotonic() + within
        for bucket in rows[0]["buckets"]:
            last: int | None = 0
            while last is not None:
                if time.monotonic() > give_up_at:
                    return Removed(before - remaining, remaining)
                began = time.monotonic()
                step = await self._step(mailing_id, bucket, last, keeps_report)
                if step is None:
                    return Removed(before - remaining, remaining)
                last, remaining = step
                if considerate:
                    await asyncio.sleep(time.monotonic() - began)
            if considerate and remaining:
                remaining = await self._empty(mailing_id, remaining)
        await self._database.execute(*_SQL["end_removal"].bind(mailing_id=mailing_id, keeps_report=keeps_report))
        return Removed(before, 0)

    async def _empty(self, mailing_id: int, remaining: int) -> int:
        """Empty the mailing's partition if nobody else's messages are there; return how many messages remain."""
        async with self._database.connection() as connection:
            try:
                async with connection.transaction():
                    if await connection.fetchval(*_SQL["lock_removal"].bind(mailing_id=mailing_id)) is None:
                        return remaining  # another replica is at it
                    if await connection.fetchval(*_SQL["empty_partition"].bind(mailing_id=mailing_id)):
                        statement = _SQL["keep_blocks_remaining"].bind(mailing_id=mailing_id)
                        return int(await connection.fetchval(*statement))
            except _BUSY:
                pass  # somebody reads it, such as a backup; messages go step by step, and it is tried again
        return remaining

    async def _step(
        self, mailing_id: int, bucket: int, after: int, keeps_report: bool
    ) -> tuple[int | None, int] | None:
        """Remove the next messages of a bucket; return the last one, None behind all, and how many remain.

        Return None where another replica is at it, or nothing remains.
        """
        key = {"bucket": bucket, "mailing_id": mailing_id}
        async with self._database.transaction() as connection:
            if await connection.fetchval(*_SQL["lock_removal"].bind(mailing_id=mailing_id)) is None:
                return None
            row = await connection.fetchrow(*_SQL["delete_messages"].bind(**key, after=after, most=STEP))
            deleted = row["deleted"]
            if row["last"] is None:
                deleted += await connection.fetchval(*_SQL["delete_blocks"].bind(**key))
                await connection.execute(*_SQL["delete_receipts"].bind(**key))
                if not keeps_report:
                    await connection.execute(*_SQL["delete_report"].bind(**key))
            remaining = await connection.fetchval(*_SQL["note_removed"].bind(mailing_id=mailing_id, n=deleted))
        return row["last"], remaining


async def begin_removal(connection: asyncpg.Connection, mailing_id: int, keeps_report: bool, gone: int = 0) -> None:
    """Note that the messages of a mailing are to be removed, of which `gone` are already."""
    statement = _SQL["begin_removal"].bind(mailing_id=mailing_id, keeps_report=keeps_report, gone=gone)
    await connection.execute(*statement)
