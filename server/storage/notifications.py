"""Postgres notifications: a hint that something changed, no more. Nothing depends on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import asyncpg

from dispatcher.ports import StorageUnavailable
from server.storage.database import DispatcherDatabase

CHANNEL = "mailing"
"""Notified when something changed that dispatchers should look at now."""


async def listen(database: DispatcherDatabase, hint: Callable[[], None], pause: float = 1.0) -> None:
    """Call `hint` whenever something changed, until cancelled.

    Reconnects after `pause` seconds when its connection is lost. Where notifications do
    not work (a pooler in transaction mode) nothing is ever heard, and polling does it all.
    """
    while True:
        with contextlib.suppress(StorageUnavailable):
            async with database.connection() as connection:
                await _listen(connection, hint)
        await asyncio.sleep(pause)


async def _listen(connection: asyncpg.Connection, hint: Callable[[], None]) -> None:
    """Call `hint` at every notification until the connection is lost."""
    gone = asyncio.Event()

    def lost(_: object) -> None:
        gone.set()

    def heard(*_: object) -> None:
        hint()

    connection.add_termination_listener(lost)
    await connection.add_listener(CHANNEL, heard)
    hint()
    try:
        await gone.wait()
    finally:
        connection.remove_termination_listener(lost)
        if not connection.is_closed():
            await connection.remove_listener(CHANNEL, heard)
