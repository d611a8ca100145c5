"""What one dispatcher gets from storage: an implementation of each port, and notifications.

A notification is a hint that something changed: nothing depends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from uuid import UUID

import asyncpg

from dispatcher.model.settings import FrequencyCap
from dispatcher.ports import Storage, StorageUnavailable
from server.storage.database import DispatcherDatabase
from server.storage.endpoints import PostgresEndpointHealth, PostgresRateSlots
from server.storage.planning import PostgresMailingPlan
from server.storage.replicas import PostgresHeartbeats
from server.storage.work_queue import PostgresWorkQueue

CHANNEL = "mailing"
"""Notified when something changed for which dispatchers should poll now."""


def dispatcher_storage(database: DispatcherDatabase, replica_id: UUID, cap: FrequencyCap | None = None) -> Storage:
    """Return the storage of the replica of this id. With a `cap`, no client is sent more than it allows."""
    return Storage(
        plan=PostgresMailingPlan(database),
        queue=PostgresWorkQueue(database, replica_id, cap),
        health=PostgresEndpointHealth(database, replica_id),
        rates=PostgresRateSlots(database),
        heartbeats=PostgresHeartbeats(database, replica_id),
    )


async def listen(database: DispatcherDatabase, hint: Callable[[], None], pause: float = 1.0) -> None:
    """Call `hint` whenever something changed, until cancelled.

    Reconnect `pause` seconds after the connection is lost. Where notifications do not work (behind a
    pooler in transaction mode) `hint` is never called, and changes are found by polling.
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
