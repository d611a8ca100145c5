"""Connections and transactions, and the one function that decides what an error of the database means.

`Database` serves the API and raises errors of the domain, `DispatcherDatabase` serves the engine and
raises the error of its port. Both ask `classify`. A transaction of the API that lost a race against
another one is repeated a few times before the caller gets an error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID
from zlib import crc32

import asyncpg

from dispatcher.ports import StorageUnavailable
from server.domain.clients import known_zones
from server.domain.errors import Conflict, DatabaseUnavailable
from server.storage.queries import load_queries

_SQL = load_queries("database.sql")

Pool = asyncpg.Pool
"""The connections that stores share; a name for modules that only hand them on."""

TRIES = 5
"""How often a transaction is tried when others get in its way."""

Result = TypeVar("Result")


class Fault(Enum):
    """What an error means for whoever used the database."""

    AWAY = "away"
    """The database is down, starting, failing over, full or too slow: waiting helps."""
    RACE = "race"
    """Another transaction got in the way: the same work may succeed at once."""
    BUG = "bug"
    """A mistake of ours: it would fail again."""


RACES = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    # The server ended the session of a transaction that took too long.
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    # A standby where a primary was wanted; a connection that was cut off in the middle of a message.
    asyncpg.exceptions.InternalClientError,
    OSError,
    TimeoutError,
)

_ENDED = re.compile(
    "(pool|connection) is clos(ed|ing)$|another operation is (in progress|cancelling)$|released back to the pool$"
)
"""What asyncpg says of a pool or connection that is closed, or reads the last words of a server that went away."""


def classify(error: BaseException) -> Fault:
    """Return what an error means that was raised where the database was used.

    asyncpg raises InterfaceError for a lost connection and for our mistakes (a wrong number of
    arguments) alike; only its message tells them apart.
    """
    if isinstance(error, _AWAY):
        return Fault.AWAY
    if isinstance(error, RACES):
        return Fault.RACE
    if isinstance(error, asyncpg.InterfaceError) and _ENDED.search(str(error)):
        return Fault.AWAY
    return Fault.BUG


class RaceLost(Exception):
    """Another transaction changed what this one had looked at; the work is to be repeated."""


class Database:
    """The pool, behind limits, for the API.

    `acquire_timeout` is in seconds, None for no limit; `failures` counts how often the database
    could not be used for the time being.
    """

    def __init__(self, pool: asyncpg.Pool, acquire_timeout: float | None = 5.0) -> None:
        self.failures = 0
        self._pool = pool
        self._acquire_timeout = acquire_timeout

    @property
    def size(self) -> int:
        """The most connections there are at once."""
        return int(self._pool.get_max_size())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection outside of any transaction. Raise DatabaseUnavailable."""
        try:
            connection = await self._acquire()
            try:
                yield connection
            finally:
                await self._pool.release(connection)
        except Exception as error:
            unavailable = self._unavailable(error)
            if unavailable is None:
                raise
            self.failures += 1
            raise unavailable from error

    async def _acquire(self) -> asyncpg.Connection:
        try:
            return await self._pool.acquire(timeout=self._acquire_timeout)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # Refused credentials, a database that is being made: whatever it is, there is no connection to be had.
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def _unavailable(self, error: Exception) -> Exception | None:
        """Return what to raise instead of an error that waiting helps against."""
        return DatabaseUnavailable() if classify(error) is Fault.AWAY else None

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Return the rows of one statement. Raise DatabaseUnavailable."""
        async with self.connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
        return rows

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record:
        """Return the first row of one statement, None without any. Raise DatabaseUnavailable."""
        async with self.connection() as connection:
            return await connection.fetchrow(query, *arguments)

    async def execute(self, query: str, *arguments: Any) -> None:
        """Execute one statement. Raise DatabaseUnavailable."""
        async with self.connection() as connection:
            await connection.execute(query, *arguments)

    async def answers(self, within: float) -> bool | None:
        """Return whether a statement is answered within so many seconds; None when every connection is at work."""
        if self._pool.get_idle_size() == 0 and self._pool.get_size() == self.size:
            return None
        try:
            async with asyncio.timeout(within), self.connection() as connection:
                await connection.execute("SELECT")
        except (DatabaseUnavailable, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection inside a transaction. Raise DatabaseUnavailable."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection on which all reads see the same moment. Raise DatabaseUnavailable."""
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection

    async def transact(self, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        """Return what `work` returns, run in a transaction and repeated after a lost race.

        Raise DatabaseUnavailable, and Conflict when every try lost.
        """
        for _ in range(TRIES):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except (RaceLost, *RACES):
                continue
        raise Conflict


class DispatcherDatabase(Database):
    """The same for the engine, which has a pool of its own.

    Every method raises StorageUnavailable instead of DatabaseUnavailable, for a lost race as well:
    the engine does later whatever it could not do now.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool, acquire_timeout=None)

    def _unavailable(self, error: Exception) -> Exception | None:
        return None if classify(error) is Fault.BUG else StorageUnavailable(f"{type(error).__name__}: {error}")


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
