"""What was fixed when the database was set up: how clients are spread over buckets, the zones, and its identity."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID
from zlib import crc32

from server.domain.clients import known_zones
from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("database.sql")


@dataclass(frozen=True, slots=True)
class Installation:
    """What was fixed when the database was set up: the buckets, the time zones of clients, its identity, `epoch`."""

    buckets: int
    zones: frozenset[str]
    epoch: UUID

    def bucket_of_phone(self, phone: str) -> int:
        """Return the bucket of a new client with this phone."""
        return crc32(phone.encode()) % self.buckets

    def bucket_of_client(self, client_id: int) -> int:
        """Return the bucket that a client's id names."""
        return client_id % self.buckets

    def bucket_of_request(self, request_id: UUID) -> int:
        """Return the bucket that stores a request id."""
        return crc32(request_id.bytes) % self.buckets


async def read_installation(database: Database) -> Installation:
    """Return it; this takes some 100 ms. Raise DatabaseUnavailable."""
    async with database.connection() as connection:
        buckets = await connection.fetchval(*_SQL["count_buckets"].bind())
        names = [row["name"] for row in await connection.fetch(*_SQL["list_zones"].bind())]
        epoch = await connection.fetchval(*_SQL["database_epoch"].bind())
    return Installation(buckets, known_zones(names), epoch)
