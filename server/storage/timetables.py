"""Holidays and quiet hours of the service, in the database: there every replica and every function finds the same.

The replica that started last decides. What waits already is judged anew when something changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import asyncpg
import orjson

from server.domain.clients import ReceiveWindow
from server.storage.database import Database, notify_dispatchers
from server.storage.queries import load_queries

_SQL = load_queries("timetables.sql")


async def store_timetables(
    database: Database, window: ReceiveWindow | None, calendars: Mapping[str, Sequence[date]]
) -> None:
    """Store the window of clients without one and the calendars. Raise DatabaseUnavailable."""

    async def work(connection: asyncpg.Connection) -> None:
        text = orjson.dumps(calendars).decode()
        start, length = (window.start, window.duration) if window else (None, None)
        changed = [row["name"] for row in await connection.fetch(*_SQL["store_calendars"].bind(calendars=text))]
        named = [row["name"] for row in await connection.fetch(*_SQL["named_calendars"].bind())]
        await connection.execute(*_SQL["remove_calendars"].bind(kept=[*calendars, *named]))
        is_other = bool(await connection.fetchval(*_SQL["set_default_window"].bind(start=start, length=length)))
        if changed or is_other:
            await connection.execute(*_SQL["judge_all_anew"].bind(all=is_other, calendars=changed))
            await notify_dispatchers(connection)

    await database.transact(work)
