"""The log in the database: written with what it tells about, read in order, forgotten by age.

Reading takes no lock. Forgetting locks nothing that writing needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from operator import itemgetter

import asyncpg
import orjson

from dispatcher.outcome_events import Event, Level
from server.domain.change_feed import Positions
from server.domain.events import BucketPage, EventQuery, RecordedEvent
from server.domain.principals import caller
from server.storage import event_writer as postgres_log
from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("events.sql")

PAGE_ENTRIES = 31
"""The most entries of one bucket that a read returns: some 500 of all of them."""

READ_SPAN = 4096
"""The most numbers of one bucket that a read looks through."""


async def record(connection: asyncpg.Connection, *entries: Event, bucket: int = 0) -> None:
    """Write entries, as the last thing that their transaction does, and as the present caller's doing.

    `bucket` is that of their client, if any.
    """
    await postgres_log.record(connection, bucket, entries, str(caller()))


class EventStore:
    """Reads the log. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, buckets: int) -> None:
        self._database = database
        self.buckets = buckets

    async def ends(self) -> tuple[Positions, Positions]:
        """Return the last numbers given and the last ones forgotten."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["log_ends"])
        return tuple(row["head"] for row in rows), tuple(row["floor"] for row in rows)

    async def read(self, query: EventQuery, after: Positions) -> list[BucketPage]:
        """Return a page of each bucket behind `after`."""
        arguments = [list(after), PAGE_ENTRIES, READ_SPAN, int(query.level), query.message_id, query.client_id]
        mailing_id = query.mailing_id or query.message_id >> 32
        name = "read_log_of_mailing" if mailing_id else "read_log"
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL[name], *arguments, *([mailing_id] if mailing_id else []))
        groups = [list(group) for _, group in groupby(rows, itemgetter("bucket"))]
        return [_page(group, position) for group, position in zip(groups, after, strict=True)]

    async def expired_buckets(self, older_than: timedelta) -> list[int]:
        """Return the buckets that have entries older than that."""
        async with self._database.connection() as connection:
            return [row["bucket"] for row in await connection.fetch(_SQL["expired_log_buckets"], older_than)]

    async def forget(self, bucket: int, older_than: timedelta, most: int) -> int:
        """Remove up to `most` of a bucket's oldest entries; return how many numbers they took.

        Does nothing while another replica is at this bucket.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["expired_log"], bucket, older_than, most)
            if row is None or row["last"] is None:
                return 0
            await connection.execute(_SQL["forget_log"], bucket, row["floor"], row["last"])
            await connection.execute(_SQL["raise_log_floor"], bucket, row["last"])
            return int(row["last"] - row["floor"])


def _page(rows: Sequence[asyncpg.Record], after: int) -> BucketPage:
    first = rows[0]
    entries = [(row["no"], _logged(row)) for row in rows if row["no"] is not None]
    reached = entries[-1][0] if len(entries) == PAGE_ENTRIES else min(after + READ_SPAN, first["head"])
    # A full page says nothing of what lies behind its last entry.
    reached_at = None if len(entries) == PAGE_ENTRIES else first["reached_at"]
    return BucketPage(after, entries, max(reached, after), reached_at, first["head"], first["floor"])


def _logged(row: asyncpg.Record) -> RecordedEvent:
    return RecordedEvent(
        at=row["at"],
        level=Level(row["level"]),
        event=row["event"],
        text=row["text"],
        mailing_id=row["mailing_id"],
        message_id=row["message_id"],
        client_id=row["client_id"],
        principal=row["principal"],
        details=orjson.loads(row["details"]),
    )
