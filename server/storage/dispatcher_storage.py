"""What one dispatcher gets from storage: an implementation of each port, and notifications.

A notification is a hint that something changed: nothing depends on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

import asyncpg

from dispatcher.model.settings import FrequencyCap
from dispatcher.ports import Storage, StorageUnavailable
from server.storage.database import DispatcherDatabase
from server.storage.day_quotas import PostgresDayQuotas
from server.storage.endpoints import PostgresEndpointHealth, PostgresRateSlots
from server.storage.planning import PostgresMailingPlan
from server.storage.replicas import PostgresHeartbeats
from server.storage.schema_watch import SchemaWatch
from server.storage.work_queue import PostgresWorkQueue

log = logging.getLogger(__name__)

CHANNEL = "mailing"
"""Notified when something changed for which dispatchers should poll now."""


def dispatcher_storage(
    database: DispatcherDatabase, replica_id: UUID, cap: FrequencyCap | None = None, schema: SchemaWatch | None = None
) -> Storage:
    """Return the storage of the replica of this id. With a `cap`, no client is sent more than it allows.

    `schema` learns with every heartbeat whether the database has a newer one than this release.
    """
    schema = schema or SchemaWatch()
    return Storage(
        plan=PostgresMailingPlan(database),
        queue=PostgresWorkQueue(database, replica_id, cap, schema),
        health=PostgresEndpointHealth(database, replica_id),
        rates=PostgresRateSlots(database),
        quotas=PostgresDayQuotas(database),
        heartbeats=PostgresHeartbeats(database, replica_id, schema),
    )


async def listen(database: DispatcherDatabase, hint: Callable[[], None], pause: float = 1.0) -> None:
    """Call `hint` whenever something changed, until cancelled.

    Reconnect `pause` seconds after the connection is lost, for whatever reason. Where notifications do
    not work (behind a pooler in transaction mode) `hint` is never called, and changes are found by polling.
    """
    while True:
        try:
            async with database.connection() as connection:
                database.kept.add(connection)
                try:
                    await _listen(connection, hint)
                finally:
                    database.kept.discard(connection)
        except StorageUnavailable:
            pass
        except Exception:  # hints only save time, and the next connection may have them
            log.exception("the LISTEN connection failed and is reopened: changes are found by polling meanwhile")
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError  # an error of the connection, as it was given back, hid it
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
        if not gone.is_set():  # a lost connection takes no calls: their errors would hide a cancellation
            connection.remove_termination_listener(lost)
            await connection.remove_listener(CHANNEL, heard)
