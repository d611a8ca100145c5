"""Deletes mailings with their messages, of any size.

The first transaction ends everything that could still write messages and removes the mailing: from
then on it is not found, and nobody reads a part of its messages. The rest is removed in short
transactions. When the service dies between two of them, a repeated call finishes the deletion, or
the deletion sweeper of any replica does.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from server.domain.clients import check_etag
from server.domain.errors import Kind, NotFound, WrongState
from server.domain.events import mailing_event
from server.domain.mailings import DELETABLE
from server.storage.database import Database
from server.storage.events import record
from server.storage.mailing_rows import mailing_of
from server.storage.queries import load_queries

STEP = 10_000
"""The most messages that one transaction removes."""

_SQL = load_queries("mailing_deletion.sql")
_MAILINGS = load_queries("mailings.sql")


class MailingDeletion:
    """Removes mailings. May raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, mailing_id: int, etag: str, allow_missing: bool) -> int:
        """Remove the mailing and its messages; return how many messages this call removed.

        Raise StaleEtag, WrongState while it is running or paused, and NotFound when nothing is
        left of it, unless `allow_missing`.
        """

        async def work(connection: asyncpg.Connection) -> int | None:
            return await _remove_mailing(connection, mailing_id, etag)

        unwritten = await self._database.transact(work)
        buckets = await self._remains(mailing_id)
        if unwritten is None and not (buckets or allow_missing):
            raise NotFound(Kind.MAILING, mailing_id)
        return (unwritten or 0) + await self._delete_rest(mailing_id, buckets)

    async def sweep(self) -> dict[int, int]:
        """Finish deletions that were interrupted; return the number of removed messages by mailing."""
        leftovers = [row["mailing_id"] for row in await self._database.fetch(*_SQL["list_leftovers"].bind())]
        return {one: await self._delete_rest(one, await self._remains(one)) for one in leftovers}

    async def _remains(self, mailing_id: int) -> list[int]:
        rows = await self._database.fetch(*_SQL["list_remains"].bind(mailing_id=mailing_id))
        return [row["bucket"] for row in rows]

    async def _delete_rest(self, mailing_id: int, buckets: Sequence[int]) -> int:
        return sum([await self._delete_messages(mailing_id, bucket) for bucket in buckets])

    async def _delete_messages(self, mailing_id: int, bucket: int) -> int:
        """Remove what is left in one bucket; return how many messages."""
        key, deleted, last = {"bucket": bucket, "mailing_id": mailing_id}, 0, 0
        while last is not None:
            row = await self._database.fetchrow(*_SQL["delete_messages"].bind(**key, after=last, most=STEP))
            deleted, last = deleted + row["deleted"], row["last"]
        async with self._database.transaction() as connection:
            deleted += await connection.fetchval(*_SQL["delete_blocks"].bind(**key))
            for name in ("delete_counts", "delete_receipts", "delete_figures", "delete_expansion"):
                await connection.execute(*_SQL[name].bind(**key))
        return deleted


async def _remove_mailing(connection: asyncpg.Connection, mailing_id: int, etag: str) -> int | None:
    """Remove the mailing itself and its open work.

    Return how many messages stood in that alone, None when there is no such mailing.
    """
    row = await connection.fetchrow(*_MAILINGS["lock_mailing"].bind(mailing_id=mailing_id))
    if row is None:
        return None
    mailing = mailing_of(row)
    check_etag(etag, mailing.etag)
    if mailing.state not in DELETABLE:
        raise WrongState("deleted", mailing.state, DELETABLE)
    await connection.execute(*_SQL["close_expansions"].bind(mailing_id=mailing_id))
    # Repeated, because a settle that this waited for may have put messages into new batches.
    unwritten = 0
    while await connection.fetchval(*_SQL["has_batches"].bind(mailing_id=mailing_id)):
        unwritten += await connection.fetchval(*_SQL["delete_batches"].bind(mailing_id=mailing_id))
    await connection.execute(*_SQL["delete_mailing"].bind(mailing_id=mailing_id))
    await connection.execute(*_SQL["delete_rate_slots"].bind(mailing_id=mailing_id))
    await record(connection, mailing_event(mailing_id, "deleted"))
    return unwritten
