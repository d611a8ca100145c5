"""Replicas, the runtime settings of all of them, and the emergency stop.

A write notifies dispatchers in its own transaction; one that misses the notification sees the new
settings at its next heartbeat. Claims check the emergency stop themselves, so it works at once.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from dispatcher.model.settings import DispatchSettings, SettingOverrides
from server.domain.events import dispatch_paused, dispatch_settings_changed
from server.domain.replicas import OVERRIDE_FIELDS, DispatchState, RuntimeSettings, amended_overrides, replica_of
from server.domain.server_info import DatabaseVersions
from server.storage.database import Database, DispatcherDatabase, notify_dispatchers
from server.storage.endpoints import get_suspensions
from server.storage.events import record
from server.storage.queries import load_queries
from server.storage.schema_watch import NEWER_SCHEMA, SchemaWatch

_SQL = load_queries("replicas.sql")


class ReplicaStore:
    """Reads replicas, writes runtime settings. Every method may raise DatabaseUnavailable.

    `started_with` are the settings of this process; `hint` wakes its dispatcher.
    """

    def __init__(self, database: Database, started_with: DispatchSettings, hint: Callable[[], None]) -> None:
        self._database = database
        self._hint = hint
        self.started_with = started_with

    async def database_versions(self) -> DatabaseVersions:
        """Return the versions of schema and database server."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(*_SQL["database_versions"].bind())
        return DatabaseVersions(row["schema_version"], row["server"])

    async def read(self) -> DispatchState:
        """Return the replicas that are alive, and the runtime settings."""
        async with self._database.connection() as connection:
            runtime_settings = await connection.fetchrow(*_SQL["get_runtime_settings"].bind())
            rows = await connection.fetch(*_SQL["list_replicas"].bind())
            suspensions = await get_suspensions(connection)
        replicas = [
            replica_of(
                row["id"],
                (row["host"], row["pid"]),
                row["started_at"],
                orjson.loads(row["status"]),
                orjson.loads(row["breakers"]),
                suspensions,
            )
            for row in rows
        ]
        return DispatchState(replicas, _runtime_settings(runtime_settings))

    async def update(self, patch: SettingOverrides, fields: Collection[str]) -> RuntimeSettings:
        """Set `fields` as in `patch`; None returns one to its environment setting. Raise InvalidFields."""

        async def work(connection: asyncpg.Connection) -> None:
            before = _runtime_settings(await connection.fetchrow(*_SQL["lock_runtime_settings"].bind())).overrides
            after = amended_overrides(before, patch, fields, self.started_with)
            if after == before:
                return
            await connection.execute(*_SQL["set_overrides"].bind(**_values(after)))
            if "recheck_max" in fields:
                longest = after.of(self.started_with).recheck_max
                await connection.execute(*_SQL["expedite_rechecks"].bind(longest=timedelta(seconds=longest)))
            await notify_dispatchers(connection)
            await record(connection, dispatch_settings_changed(_values(before), _values(after)))

        return await self._change(work)

    async def pause(self) -> RuntimeSettings:
        """Stop all sending until `resume`."""
        return await self._set_paused(True)

    async def resume(self) -> RuntimeSettings:
        """Continue sending."""
        return await self._set_paused(False)

    async def _set_paused(self, paused: bool) -> RuntimeSettings:
        async def work(connection: asyncpg.Connection) -> None:
            if await connection.fetchval(*_SQL["set_stopped"].bind(stopped=paused)) is not None:
                await notify_dispatchers(connection)
                await record(connection, dispatch_paused(paused))

        return await self._change(work)

    async def _change(self, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> RuntimeSettings:
        async def change(connection: asyncpg.Connection) -> RuntimeSettings:
            await work(connection)
            return _runtime_settings(await connection.fetchrow(*_SQL["get_runtime_settings"].bind()))

        runtime_settings = await self._database.transact(change)
        self._hint()
        return runtime_settings


def _values(overrides: SettingOverrides) -> dict[str, float | None]:
    return {name: getattr(overrides, name) for name in OVERRIDE_FIELDS}


def _runtime_settings(row: asyncpg.Record) -> RuntimeSettings:
    return RuntimeSettings(
        SettingOverrides(version=row["version"], **{name: row[name] for name in OVERRIDE_FIELDS}), row["stopped"]
    )


class PostgresHeartbeats:
    """The row of one replica, this process. Implements `ports.Heartbeats`, and tells `schema` the version."""

    def __init__(self, database: DispatcherDatabase, replica_id: UUID, schema: SchemaWatch) -> None:
        self._database = database
        self._replica_id = replica_id
        self._schema = schema
        self._host, self._pid = socket.gethostname(), os.getpid()

    async def beat(self, age: float, alive_for: float, status: Mapping[str, Any]) -> tuple[float, SettingOverrides]:
        shown = {**status, "poll_reason": NEWER_SCHEMA} if self._schema.is_newer else status
        statement = _SQL["beat"].bind(
            replica_id=self._replica_id,
            host=self._host,
            pid=self._pid,
            age=timedelta(seconds=age),
            alive_for=timedelta(seconds=alive_for),
            status=orjson.dumps(shown).decode(),
        )
        async with self._database.connection() as connection:
            await connection.execute(*statement)
            row = dict(await connection.fetchrow(*_SQL["read_overrides"].bind()))
        self._database.written_at = time.monotonic()
        self._schema.seen(row.pop("schema_version"))
        return row.pop("read_at"), SettingOverrides(**row)

    async def leave(self) -> None:
        await self._database.execute(*_SQL["leave"].bind(replica_id=self._replica_id))
