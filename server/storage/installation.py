"""What was fixed when the database was set up, read once at start."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID
from zlib import crc32

from server.domain.zones import known_zones
from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("installation.sql")


@dataclass(frozen=True, slots=True)
class Installation:
    """The number of buckets, and the time zones that clients may have."""

    buckets: int
    zones: frozenset[str]

    def bucket_of_phone(self, phone: str) -> int:
        """Return the bucket of a new client with this phone."""
        return crc32(phone.encode()) % self.buckets

    def bucket_of_client(self, client_id: int) -> int:
        """Return the bucket that a client's id names."""
        return client_id % self.buckets

    def bucket_of_request(self, request_id: UUID) -> int:
        """Return the bucket in which a creating call is remembered."""
        return crc32(request_id.bytes) % self.buckets


async def read_installation(database: Database) -> Installation:
    """Read it; take some 100 ms. Raise DatabaseUnavailable."""
    async with database.connection() as connection:
        buckets = await connection.fetchval(_SQL["count_buckets"])
        names = [row["name"] for row in await connection.fetch(_SQL["list_zones"])]
    return Installation(buckets, known_zones(names))
