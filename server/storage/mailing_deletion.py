"""Deletes mailings with their messages, of any size.

One transaction ends everything that could still write messages and removes the mailing: from then on it
is not found, and nobody reads a part of its messages. What little can be removed at once is; the rest
follows in the background, see `removals`.
"""

from __future__ import annotations

import asyncpg

from server.domain.clients import check_etag
from server.domain.errors import Kind, NotFound, WrongState
from server.domain.events import mailing_event
from server.domain.mailings import DELETABLE
from server.storage.database import Database
from server.storage.events import record
from server.storage.mailing_rows import mailing_of
from server.storage.queries import load_queries
from server.storage.removals import Removals, Removed, begin_removal

AT_ONCE = 0.5
"""Seconds that a call removes messages before it answers."""

_SQL = load_queries("mailing_deletion.sql")
_MAILINGS = load_queries("mailings.sql")


class MailingDeletion:
    """Removes mailings. May raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._removals = Removals(database)

    async def delete(self, mailing_id: int, etag: str, allow_missing: bool) -> Removed:
        """Remove the mailing and its messages; return how many this call removed, and how many follow by themselves.

        Raise StaleEtag, WrongState while it is running or paused, and NotFound when nothing is
        left of it, unless `allow_missing`.
        """

        async def work(connection: asyncpg.Connection) -> int | None:
            return await _remove_mailing(connection, mailing_id, etag)

        unwritten = await self._database.transact(work)
        if unwritten is None and not (allow_missing or await self._removals.remains(mailing_id)):
            raise NotFound(Kind.MAILING, mailing_id)
        removed = await self._removals.remove(mailing_id, AT_ONCE, considerate=False)
        return Removed(removed.messages + (unwritten or 0), removed.remaining)


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
    await connection.execute(*_SQL["delete_day_quotas"].bind(mailing_id=mailing_id))
    await begin_removal(connection, mailing_id, keeps_report=False, gone=unwritten)
    await record(connection, mailing_event(mailing_id, "deleted"))
    return unwritten
