"""Reads mailings with their progress for callers who ask for one each.

What is asked for at the same time is read once for all. While many ask, one connection is kept for them, and what
was read over it is good as long as nothing at all was written since: the database says so at a tenth of the price.
Nobody gets what was read before their call, unless the database has confirmed it after the call came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg

from server.domain.mailings import Mailing
from server.storage.database import Database
from server.storage.gathered import Act, Gathered
from server.storage.mailing_rows import mailing_of
from server.storage.queries import load_queries

_SQL = load_queries("mailings.sql")

LINGER = 0.1
"""Seconds for which a connection is kept, if others are free."""

_PACE = 0.001
"""Seconds for each further caller: less than it takes to answer several, so that they lose nothing."""

_LONGEST_PAUSE = 15
"""Reads in a row for which the database is not asked, where it always had something written since."""


async def read_mailings(connection: asyncpg.Connection, ids: Sequence[int]) -> dict[int, Mailing]:
    """Return the mailings that exist."""
    rows = await connection.fetch(*_SQL["get_mailings"].bind(ids=ids))
    return {row["id"]: mailing_of(row) for row in rows}


class MailingReads:
    """Reads single mailings. May raise DatabaseUnavailable. `linger` is in seconds."""

    def __init__(self, database: Database, linger: float = LINGER) -> None:
        self._database = database
        self._longest = linger
        self._gathered = Gathered(self._session, linger=self._linger, pace=_PACE)

    async def get(self, mailing_id: int) -> Mailing | None:
        """Return a mailing as it is after this call came, None if there is none."""
        return await self._gathered.get(mailing_id)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Act[int, Mailing]]:
        async with self._database.connection() as connection:
            yield _ConfirmedReads(connection).read

    def _linger(self) -> float:
        return self._longest if self._database.has_room else 0.0


class _ConfirmedReads:
    """Reads over one connection, which remember what they read until something is written."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._known: dict[int, Mailing] = {}
        self._moment: str | None = None  # of what is known
        self._wait = 0
        self._pause = 1  # a single read has nothing to confirm

    async def read(self, ids: Sequence[int]) -> Mapping[int, Mailing]:
        """Return the mailings that exist, as they are now."""
        if not await self._may_know():
            return await read_mailings(self._connection, ids)
        found = {one: self._known[one] for one in ids if one in self._known}
        if len(found) < len(ids):
            read = await read_mailings(self._connection, [one for one in ids if one not in found])
            # A rate falls by itself.
            self._known |= {one: mailing for one, mailing in read.items() if not mailing.progress.rate}
            found |= read
        return found

    async def _may_know(self) -> bool:
        """Ask whether something was written, and forget all if so; while it always was, ask ever less often."""
        if self._pause:
            self._pause -= 1
            return False
        moment: str | None = await self._connection.fetchval(*_SQL["moment"].bind())
        if moment is None or moment != self._moment:
            self._known, self._moment = {}, moment
            self._wait = self._pause = min(2 * self._wait + 1, _LONGEST_PAUSE)
        else:
            self._wait = 0
        return moment is not None
