"""Writes the log on Postgres, in the transaction of what an entry tells about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from dispatcher.logbook import LogEntry
from dispatcher.queries import load_queries

_SQL = load_queries("dispatcher", "log.sql")

MOST_TEXT = 1000
"""Characters of an entry's text and of each of its details."""


async def record(connection: asyncpg.Connection, bucket: int, entries: Sequence[LogEntry]) -> None:
    """Writes entries of one bucket: the client's, or 0 for what is about no client.

    The last thing that a transaction does: from here on others wait for its end.
    """
    if entries:
        await connection.execute(_SQL["record_log"], bucket, *columns(entries))


def columns(entries: Sequence[LogEntry]) -> tuple[list[Any], ...]:
    """Returns entries as parallel arrays: level, event, text, mailing, client, details."""
    return (
        [int(entry.level) for entry in entries],
        [entry.event for entry in entries],
        [_storable(entry.text) for entry in entries],
        [entry.mailing_id for entry in entries],
        [entry.client_id for entry in entries],
        [orjson.dumps({name: _storable(entry.details[name]) for name in entry.details}).decode() for entry in entries],
    )


def _storable(text: str) -> str:
    return text[:MOST_TEXT].replace("\0", "")
