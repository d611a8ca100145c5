"""Entries that are numbered by bucket and kept for a time: the change feed, and the event log.

Removing takes the oldest entries and locks nothing that writing needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import asyncpg

from server.domain.errors import DatabaseUnavailable
from server.storage.database import Database
from server.storage.queries import Query


class RetainedEntries:
    """A table of such entries. `queries` are those of a file that includes `shared/retention.sql`."""

    def __init__(self, database: Database, buckets: int, queries: Mapping[str, Query]) -> None:
        self._database = database
        self._queries = queries
        self.buckets = buckets

    async def expired_buckets(self, older_than: timedelta) -> list[int]:
        """Return the buckets that have entries older than that. Raise DatabaseUnavailable."""
        rows = await self._database.fetch(*self._queries["expired_buckets"].bind(older_than=older_than))
        return [row["bucket"] for row in rows]

    async def remove_expired(self, bucket: int, older_than: timedelta, most: int) -> int:
        """Remove up to `most` of a bucket's oldest entries; return how many numbers they took.

        Do nothing while another replica removes entries of this bucket. Raise DatabaseUnavailable.
        """
        expired = self._queries["expired_entries"].bind(bucket=bucket, older_than=older_than, most=most)
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(*expired)
            if row is None or row["last"] is None:
                return 0
            floor, last = row["floor"], row["last"]
            await connection.execute(*self._queries["remove_entries"].bind(bucket=bucket, after=floor, until=last))
            await connection.execute(*self._queries["raise_floor"].bind(bucket=bucket, floor=last))
            return int(last - floor)


def timeline_of(rows: Sequence[asyncpg.Record]) -> int:
    """Return the timeline that rows were read on. Raise DatabaseUnavailable where that was on a standby."""
    timeline: int | None = rows[0]["timeline"]
    if timeline is None:
        raise DatabaseUnavailable
    return timeline
