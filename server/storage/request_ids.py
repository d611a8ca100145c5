"""Stores creating calls by the request id of their caller, so that a repeated call makes nothing; for some days."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg

from server.domain.errors import RequestIdReused
from server.storage.database import Database
from server.storage.installation import Installation
from server.storage.queries import load_queries

_SQL = load_queries("request_ids.sql")


@dataclass(frozen=True, slots=True)
class CreatingCall:
    """A creating call: its method, its request id and a digest of its body."""

    method: str
    id: UUID
    digest: bytes


def check_same(row: asyncpg.Record, call: CreatingCall) -> None:
    """Raise RequestIdReused unless the stored call is this one."""
    if (row["method"], row["digest"]) != (call.method, call.digest):
        raise RequestIdReused


class Requests:
    """Reads and stores creating calls."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    async def find(self, connection: asyncpg.Connection, call: CreatingCall) -> int | None:
        """Return the id of the resource that `call` made before, None if it is new.

        Raise RequestIdReused when another call has its id.
        """
        bucket = self._installation.bucket_of_request(call.id)
        row = await connection.fetchrow(*_SQL["find_request"].bind(bucket=bucket, request_id=call.id))
        if row is None:
            return None
        check_same(row, call)
        return int(row["resource_id"])

    async def record(self, connection: asyncpg.Connection, call: CreatingCall, resource_id: int) -> bool:
        """Store that `call` makes `resource_id`; return False if its request id is in use.

        Wait while another call with the same request id is in progress.
        """
        statement = _SQL["record_request"].bind(
            bucket=self._installation.bucket_of_request(call.id),
            request_id=call.id,
            method=call.method,
            digest=call.digest,
            resource_id=resource_id,
        )
        return await connection.fetchval(*statement) is not None


MOST_FORGOTTEN = 5_000
"""The most request ids of a bucket that one statement forgets."""


async def forget_old_requests(database: Database, keep: timedelta) -> None:
    """Forget the request ids of calls that were made longer ago than that. Raise DatabaseUnavailable."""
    for row in await database.fetch(*_SQL["list_request_buckets"].bind()):
        forgotten = MOST_FORGOTTEN
        while forgotten == MOST_FORGOTTEN:
            statement = _SQL["forget_requests"].bind(bucket=row["bucket"], keep=keep, most=MOST_FORGOTTEN)
            forgotten = (await database.fetchrow(*statement))["forgotten"]
