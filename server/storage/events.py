"""The event log in the database: written with what it reports, read in order, without a lock.

This process's own log, and so its file, gets the same events; those of failed messages at level
debug only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import asyncpg
import orjson

from dispatcher import outcome_events
from dispatcher.model.states import Status
from dispatcher.outcome_events import Event, Level
from server.domain.events import BucketPage, EventQuery, RecordedEvent
from server.domain.principals import caller
from server.domain.resume_tokens import Positions
from server.storage.database import Database
from server.storage.queries import load_queries
from server.storage.retention import RetainedEntries, timeline_of

_SQL = load_queries("events.sql")

MOST_TEXT = 1000
"""Characters of an event's text and of each of its details."""

PAGE_ENTRIES = 31
"""The most events of one bucket that a read returns: some 500 of all of them."""

READ_SPAN = 4096
"""The most numbers of one bucket that a read scans."""

_LEVELS = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}
_log = logging.getLogger("dispatcher.log")


async def record(connection: asyncpg.Connection, *events: Event, bucket: int = 0, loudest: int = logging.ERROR) -> None:
    """Write events of one bucket (their client's, 0 without one) in the name of the present caller.

    The last thing that a transaction does: from here on others wait for its end.
    """
    if events:
        columns = event_columns(events)
        await connection.execute(*_SQL["record_log"].bind(bucket=bucket, principal=str(caller()), **columns))
        log_events(events, loudest)


def log_events(events: Sequence[Event], loudest: int = logging.ERROR) -> None:
    """Write the events to this process's own log, at their levels but no louder than `loudest`."""
    for event in events:
        level = min(_LEVELS[event.level], loudest)
        if not _log.isEnabledFor(level):
            continue
        about = (("mailing", event.mailing_id), ("client", event.client_id), ("principal", str(caller())))
        known = {name: one for name, one in about if one}
        details = {name: value for name, value in event.details.items() if name != outcome_events.ANSWER}
        _log.log(level, "%s", event.text, extra={"what": event.event, **known, "details": details})


def event_columns(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Return events as parallel arrays, the parameters of record_log."""
    return {
        "levels": [int(event.level) for event in events],
        "names": [event.event for event in events],
        "texts": [_storable(event.text) for event in events],
        "mailing_ids": [event.mailing_id for event in events],
        "client_ids": [event.client_id for event in events],
        "details": [_details(event) for event in events],
    }


def _details(event: Event) -> str:
    return orjson.dumps({name: _storable(event.details[name]) for name in event.details}).decode()


def _storable(text: str) -> str:
    return text[:MOST_TEXT].replace("\0", "")


async def record_started(connection: asyncpg.Connection, ids: Sequence[int]) -> None:
    """Record that mailings were started."""
    await record(connection, *map(outcome_events.started, ids))


async def record_expanded(connection: asyncpg.Connection) -> None:
    """Note which mailings have their whole audience by now, and record that."""
    ids = [row["id"] for row in await connection.fetch(*_SQL["note_expanded"].bind())]
    if ids:
        counts = await _totals(connection, ids)
        await record(connection, *(outcome_events.expanded(one, sum(counts[one].values())) for one in sorted(ids)))


async def record_completed(connection: asyncpg.Connection, ids: Sequence[int]) -> None:
    """Record that mailings are completed, and how their messages ended."""
    if ids:
        counts = await _totals(connection, ids)
        await record(connection, *(outcome_events.completed(one, counts[one]) for one in sorted(ids)))


async def _totals(connection: asyncpg.Connection, ids: Sequence[int]) -> dict[int, dict[Status, int]]:
    counts: dict[int, dict[Status, int]] = {mailing_id: {} for mailing_id in ids}
    for row in await connection.fetch(*_SQL["totals"].bind(ids=ids)):
        counts[row["mailing_id"]][Status(row["status"])] = row["n"]
    return counts


class EventStore(RetainedEntries):
    """Reads the event log. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, buckets: int) -> None:
        super().__init__(database, buckets, _SQL)

    async def ends(self) -> tuple[int, Positions, Positions]:
        """Return the server's timeline and, by bucket, the last numbers given and the last ones removed."""
        rows = await self._database.fetch(*_SQL["log_ends"].bind())
        return timeline_of(rows), tuple(row["head"] for row in rows), tuple(row["floor"] for row in rows)

    async def read(self, query: EventQuery, after: Positions) -> list[BucketPage]:
        """Return a page of each bucket behind `after`."""
        rows = await self._database.fetch(*_reading(query, after))
        groups = [list(group) for _, group in groupby(rows, itemgetter("bucket"))]
        return [_page(group, position) for group, position in zip(groups, after, strict=True)]


def _reading(query: EventQuery, after: Positions) -> tuple[Any, ...]:
    """Return the statement of a read; the events of one mailing have an index."""
    arguments = {
        "positions": list(after),
        "most": PAGE_ENTRIES,
        "span": READ_SPAN,
        "level": int(query.level),
        "message_id": query.message_id,
        "client_id": query.client_id,
    }
    if mailing_id := query.about_mailing:
        return _SQL["read_log_of_mailing"].bind(**arguments, mailing_id=mailing_id)
    return _SQL["read_log"].bind(**arguments)


def _page(rows: Sequence[asyncpg.Record], after: int) -> BucketPage:
    first = rows[0]
    events = [(row["no"], event_of(row)) for row in rows if row["no"] is not None]
    reached = events[-1][0] if len(events) == PAGE_ENTRIES else min(after + READ_SPAN, first["head"])
    # A full page says nothing of what lies behind its last event.
    reached_at = None if len(events) == PAGE_ENTRIES else first["reached_at"]
    return BucketPage(after, events, max(reached, after), reached_at, first["head"], first["floor"])


def event_of(row: asyncpg.Record) -> RecordedEvent:
    """Return the event of a row."""
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
