"""Holidays and quiet hours of the service, in the database: there every replica and every function finds the same.

The replica that started last decides. What waits already is judged anew when something changed, and so is what a
step in progress, or a mailing created meanwhile, took in by what was in force before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import asyncpg
import orjson

from server.domain.clients import ReceiveWindow
from server.storage.database import Database, notify_dispatchers
from server.storage.queries import load_queries

_SQL = load_queries("timetables.sql")


class _Change(NamedTuple):
    """What is another than before: the window of all clients without one, calendars by name."""

    window: bool
    calendars: list[str]


async def store_timetables(
    database: Database, window: ReceiveWindow | None, calendars: Mapping[str, Sequence[date]]
) -> None:
    """Store the window of clients without one and the calendars. Raise DatabaseUnavailable."""

    async def work(connection: asyncpg.Connection) -> tuple[_Change, list[int]]:
        change = await _store(connection, window, calendars)
        return change, await _judge_anew(connection, change, [])

    change, judged = await database.transact(work)
    # A mailing that was created in between was not seen, and perhaps began by what was in force before.
    await database.transact(lambda connection: _judge_anew(connection, change, judged))


async def _store(
    connection: asyncpg.Connection, window: ReceiveWindow | None, calendars: Mapping[str, Sequence[date]]
) -> _Change:
    text = orjson.dumps(calendars).decode()
    start, length = (window.start, window.duration) if window else (None, None)
    changed = [row["name"] for row in await connection.fetch(*_SQL["store_calendars"].bind(calendars=text))]
    named = [row["name"] for row in await connection.fetch(*_SQL["named_calendars"].bind())]
    await connection.execute(*_SQL["remove_calendars"].bind(kept=[*calendars, *named]))
    is_other = await connection.fetchval(*_SQL["set_default_window"].bind(start=start, length=length))
    return _Change(bool(is_other), changed)


async def _judge_anew(connection: asyncpg.Connection, change: _Change, known: Sequence[int]) -> list[int]:
    """Let what waits in mailings that a change concerns, but for the known ones, be judged; return their ids."""
    if not (change.window or change.calendars):
        return []
    statement = _SQL["note_all_judged"].bind(all=change.window, calendars=change.calendars, known=known)
    ids = [row["id"] for row in await connection.fetch(*statement)]
    if ids:
        await connection.execute(*_SQL["wait_for_expansions"].bind(ids=ids))
        await connection.execute(*_SQL["judge_waiting"].bind(ids=ids))
        await notify_dispatchers(connection)
    return ids
