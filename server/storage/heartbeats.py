"""The table of replicas on Postgres; implements `ports.Heartbeats`."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from dispatcher.model.settings import SettingOverrides
from server.storage.queries import load_queries
from server.storage.reach import translate_database_errors

_SQL = load_queries("heartbeats.sql")


class PostgresHeartbeats:
    """The row of one replica, this process, behind an asyncpg pool."""

    def __init__(self, pool: asyncpg.Pool, replica_id: UUID) -> None:
        self._pool = pool
        self._replica_id = replica_id
        self._host, self._pid = socket.gethostname(), os.getpid()

    async def beat(self, age: float, alive_for: float, status: Mapping[str, Any]) -> SettingOverrides:
        statement = _SQL["beat"].bind(
            replica_id=self._replica_id,
            host=self._host,
            pid=self._pid,
            age=timedelta(seconds=age),
            alive_for=timedelta(seconds=alive_for),
            status=orjson.dumps(status).decode(),
        )
        with translate_database_errors():
            row = await self._pool.fetchrow(*statement)
        return SettingOverrides(**row)

    async def leave(self) -> None:
        with translate_database_errors():
            await self._pool.execute(*_SQL["leave"].bind(replica_id=self._replica_id))
