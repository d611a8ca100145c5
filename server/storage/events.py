"""The event log in the database: written with what it reports, read in order, without a lock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import asyncpg
import orjson

from dispatcher.outcome_events import Event, Level
from server.domain.events import BucketPage, EventQuery, RecordedEvent
from server.domain.principals import caller
from server.domain.resume_tokens import Positions
from server.storage import event_writer
from server.storage.database import Database
from server.storage.queries import load_queries
from server.storage.retention import RetainedEntries

_SQL = load_queries("events.sql")

PAGE_ENTRIES = 31
"""The most entries of one bucket that a read returns: some 500 of all of them."""

READ_SPAN = 4096
"""The most numbers of one bucket that a read scans."""


async def record(connection: asyncpg.Connection, *entries: Event, bucket: int = 0) -> None:
    """Write entries, as the last statements of their transaction, in the name of the present caller.

    `bucket` is that of their client, if any.
    """
    await event_writer.record(connection, bucket, entries, str(caller()))


class EventStore(RetainedEntries):
    """Reads the event log. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, buckets: int) -> None:
        super().__init__(database, buckets, _SQL)

    async def ends(self) -> tuple[Positions, Positions]:
        """Return the last numbers given and the last ones removed."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(*_SQL["log_ends"].bind())
        return tuple(row["head"] for row in rows), tuple(row["floor"] for row in rows)

    async def read(self, query: EventQuery, after: Positions) -> list[BucketPage]:
        """Return a page of each bucket behind `after`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(*_reading(query, after))
        groups = [list(group) for _, group in groupby(rows, itemgetter("bucket"))]
        return [_page(group, position) for group, position in zip(groups, after, strict=True)]


def _reading(query: EventQuery, after: Positions) -> tuple[Any, ...]:
    """Return the statement of a read; one mailing's events have an index."""
    arguments = {
        "positions": list(after),
        "most": PAGE_ENTRIES,
        "span": READ_SPAN,
        "level": int(query.level),
        "message_id": query.message_id,
        "client_id": query.client_id,
    }
    if mailing_id := query.mailing_id or query.message_id >> 32:
        return _SQL["read_log_of_mailing"].bind(**arguments, mailing_id=mailing_id)
    return _SQL["read_log"].bind(**arguments)


def _page(rows: Sequence[asyncpg.Record], after: int) -> BucketPage:
    first = rows[0]
    entries = [(row["no"], _recorded(row)) for row in rows if row["no"] is not None]
    reached = entries[-1][0] if len(entries) == PAGE_ENTRIES else min(after + READ_SPAN, first["head"])
    # A full page does not show what is behind its last entry.
    reached_at = None if len(entries) == PAGE_ENTRIES else first["reached_at"]
    return BucketPage(after, entries, max(reached, after), reached_at, first["head"], first["floor"])


def _recorded(row: asyncpg.Record) -> RecordedEvent:
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
