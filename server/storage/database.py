"""Connections and transactions, with the database's failures told in the domain's words.

A transaction that lost a race against another one (deadlock, serialization) is repeated a
few times before the caller hears of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import asyncpg

from server.domain.errors import Conflict, DatabaseUnavailable

Pool = asyncpg.Pool
"""The connections that stores share; a name for those who only hand them on."""

TRIES = 5
"""How often a transaction is tried that others get in the way of."""

Result = TypeVar("Result")

AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    # A standby where a primary was wanted; a connection that was cut off in the middle of a message.
    asyncpg.exceptions.InternalClientError,
    OSError,
    TimeoutError,
)
"""The database is down, starting, failing over, full or too slow: a matter of waiting."""

RACES = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""Two transactions met, and this one gave way."""


_ENDED = re.compile("clos|another operation is in progress")


class RaceLost(Exception):
    """Another transaction changed what this one had looked at; the work is to be repeated."""


@contextmanager
def _in_domain_words() -> Iterator[None]:
    try:
        yield
    except AWAY as error:
        raise DatabaseUnavailable from error
    except asyncpg.InterfaceError as error:
        # The pool or the connection is closed or closing, or reads the last words of a server that went away.
        if not _ENDED.search(str(error)):
            raise
        raise DatabaseUnavailable from error


class Database:
    """The pool, behind limits. `acquire_timeout` is in seconds; `failures` counts DatabaseUnavailable."""

    def __init__(self, pool: asyncpg.Pool, acquire_timeout: float = 5.0) -> None:
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
            with _in_domain_words():
                connection = await self._acquire()
                try:
                    yield connection
                finally:
                    await self._pool.release(connection)
        except DatabaseUnavailable:
            self.failures += 1
            raise

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

    async def _acquire(self) -> asyncpg.Connection:
        try:
            return await self._pool.acquire(timeout=self._acquire_timeout)
        except asyncpg.PostgresError as error:  # whatever it is, there is no connection to be had
            raise DatabaseUnavailable from error

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
