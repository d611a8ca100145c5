"""Writes the log on Postgres, in the transaction of what an entry tells about.

The process's own log, and so its file, hears the same; of failed messages only at level debug.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from dispatcher import outcome_events as logbook
from dispatcher.model.states import Status
from dispatcher.outcome_events import Event, Level
from server.storage.queries import load_queries

_SQL = load_queries("event_writer.sql")

MOST_TEXT = 1000
"""Characters of an entry's text and of each of its details."""

_LOUDNESS = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}
_log = logging.getLogger("dispatcher.log")

Counts = dict[int, dict[Status, int]]


async def record(connection: asyncpg.Connection, bucket: int, entries: Sequence[Event], principal: str = "") -> None:
    """Write entries of one bucket: the client's, or 0 for what is about no client.

    `principal` is whose doing it was, '' the service's own. The last thing that a
    transaction does: from here on others wait for its end.
    """
    if entries:
        await connection.execute(_SQL["record_log"], bucket, *columns(entries), principal)
        say(entries, principal=principal)


def say(entries: Sequence[Event], loudest: int = logging.ERROR, principal: str = "") -> None:
    """Have this process log the same, at the levels of the entries but no louder than that."""
    for entry in entries:
        level = min(_LOUDNESS[entry.level], loudest)
        if not _log.isEnabledFor(level):
            continue
        about = (("mailing", entry.mailing_id), ("client", entry.client_id), ("principal", principal))
        known = {name: one for name, one in about if one}
        _log.log(level, "%s", entry.text, extra={"what": entry.event, **known, "details": dict(entry.details)})


def columns(entries: Sequence[Event]) -> tuple[list[Any], ...]:
    """Return entries as parallel arrays: level, event, text, mailing, client, details."""
    return (
        [int(entry.level) for entry in entries],
        [entry.event for entry in entries],
        [_storable(entry.text) for entry in entries],
        [entry.mailing_id for entry in entries],
        [entry.client_id for entry in entries],
        [orjson.dumps({name: _storable(entry.details[name]) for name in entry.details}).decode() for entry in entries],
    )


async def record_started(connection: asyncpg.Connection, ids: Sequence[int]) -> None:
    """Tell that mailings were started."""
    await record(connection, 0, [logbook.started(mailing_id) for mailing_id in ids])


async def record_expanded(connection: asyncpg.Connection) -> None:
    """Note which mailings have their whole audience by now, and tells of them."""
    ids = [row["id"] for row in await connection.fetch(_SQL["note_expanded"])]
    if ids:
        counts = await _totals(connection, ids)
        await record(connection, 0, [logbook.expanded(one, sum(counts[one].values())) for one in sorted(ids)])


async def record_completed(connection: asyncpg.Connection, ids: Sequence[int]) -> None:
    """Tell that mailings are completed, and how their messages ended."""
    if ids:
        counts = await _totals(connection, ids)
        await record(connection, 0, [logbook.completed(one, counts[one]) for one in sorted(ids)])


async def _totals(connection: asyncpg.Connection, ids: Sequence[int]) -> Counts:
    counts: Counts = {mailing_id: {} for mailing_id in ids}
    for row in await connection.fetch(_SQL["totals"], ids):
        counts[row["mailing_id"]][Status(row["status"])] = row["n"]
    return counts


def _storable(text: str) -> str:
    return text[:MOST_TEXT].replace("\0", "")
