"""Connections and transactions, and what their errors mean to whom.

`Database` serves the API and raises errors of the domain, `DispatcherDatabase` serves the engine and
raises the error of its port. Both ask `classify`. A transaction of the API that lost a race against
another one is repeated a few times before the caller gets an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from itertools import chain, repeat
from typing import Any, Protocol, TypeVar

import asyncpg

from dispatcher.ports import StorageUnavailable
from server.domain.errors import Conflict, DatabaseUnavailable, NotFound, ScanTooLong
from server.domain.principals import source
from server.domain.turns import Turns
from server.storage.faults import RACES, SERVER_ENDS, Fault, classify, ends_server
from server.storage.queries import load_queries

_SQL = load_queries("database.sql")

Pool = asyncpg.Pool
"""The connections that stores share; a name for modules that only hand them on."""

TRIES = 5
"""How often a transaction is tried that loses races."""

Result = TypeVar("Result")


_interrupted: set[int] = set()
"""Server processes of connections that were given back while a statement was being prepared or run."""


async def tidy(connection: asyncpg.Connection) -> None:
    """Make a connection that is given back ready for the next user.

    No session has state, so nothing is reset, which would cost a round trip. But asyncpg prepares a
    statement without a Sync: one that was cut off behind that keeps its transaction, and its locks.
    """
    if (process := connection.get_server_pid()) in _interrupted:
        _interrupted.discard(process)
        try:
            await connection.reset()
        except Exception:  # it is lost; an error here would hide why it is given back, a cancellation above all
            connection.terminate()


class RaceLost(Exception):
    """Another transaction changed what this one has read; the work is to be repeated."""


class Database:
    """The database as the API uses it, through a pool.

    `acquire_timeout` is in seconds, None for no limit. `failures` counts the uses that failed because
    the database was unavailable. `kept` are connections that somebody keeps for long: they are ended
    when their server turns out to be going or read-only, as all others are when they are used next.
    `written_at` is when those who write regularly last did (monotonic).
    """

    def __init__(self, pool: asyncpg.Pool, acquire_timeout: float | None = 5.0, turns: Turns | None = None) -> None:
        self.failures = 0
        self.written_at = float("-inf")
        self.kept: set[asyncpg.Connection] = set()
        self._pool = pool
        self._acquire_timeout = acquire_timeout
        self._turns = turns

    @property
    def scans(self) -> Database:
        """The database for statements that read many rows."""
        return self

    @property
    def reads(self) -> Database:
        """The database for what only reads many rows and decides nothing; it may be some seconds old."""
        return self

    @property
    def service(self) -> Database:
        """The database for the service's own work, which waits for no caller."""
        return self

    @property
    def all_failures(self) -> int:
        """How many uses failed because the database was unavailable, those of its parts included."""
        return self.failures

    @property
    def size(self) -> int:
        """The maximum number of connections."""
        return int(self._pool.get_max_size())

    @property
    def has_idle_connection(self) -> bool:
        """Whether a connection is open and free, as far as can be seen without asking."""
        return bool(self._pool.get_idle_size())

    @property
    def has_room(self) -> bool:
        """Whether a connection is free, or another one may be opened."""
        return int(self._pool.get_size() - self._pool.get_idle_size()) < self.size

    @asynccontextmanager
    async def connection(self, patience: float | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection outside of any transaction. Raise DatabaseUnavailable, and TooManyWaiting.

        `patience` is how long to wait for a turn, in seconds; by itself as long as for a connection.
        """
        if self._turns is None or not (caller := source()):
            async with self._connection() as connection:
                yield connection
            return
        async with self._turns.turn(caller, patience or self._acquire_timeout), self._connection() as connection:
            yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            connection = await self._acquire()
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError):
                if not connection.is_closed():
                    _interrupted.add(connection.get_server_pid())
                raise
            except SERVER_ENDS as error:
                if ends_server(error):
                    await self._leave(connection)
                raise
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
        except Exception as error:
            # Refused credentials, a missing database: for whatever reason, there is no connection.
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def _leave(self, connection: asyncpg.Connection) -> None:
        """End a connection to a server that is going or read-only, and let no other one to it be used again."""
        for one in (connection, *self.kept):
            one.terminate()
        await self._pool.expire_connections()

    def _unavailable(self, error: Exception) -> Exception | None:
        """Return what to raise instead of `error` if the database is unavailable, else None."""
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
        """Return whether the database can be written to, found out within so many seconds.

        None when every connection is in use.
        """
        if not self.has_room:
            return None
        try:
            async with asyncio.timeout(within), self.connection() as connection:
                if await connection.fetchval(*_SQL["is_read_only"].bind()):
                    raise asyncpg.ReadOnlySQLTransactionError("the server is read-only")
        except (DatabaseUnavailable, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    @asynccontextmanager
    async def transaction(self, patience: float | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection inside a transaction; see `connection`."""
        async with self.connection(patience) as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection whose reads all see the same state. Raise DatabaseUnavailable."""
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

    async def read(self, work: Callable[[Database], Awaitable[Result]]) -> Result:
        """Return what `work` finds in `reads`, or here what is not there yet. Raise NotFound for what is nowhere."""
        reads = self.reads
        try:
            return await work(reads)
        except NotFound:
            if reads is self.scans:
                raise
        return await work(self.scans)

    async def rehearse(self, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        """Return what `work` returns, and undo it. Raise what `transact` and `work` do."""

        async def undone(connection: asyncpg.Connection) -> Result:
            savepoint = connection.transaction()
            await savepoint.start()
            result = await work(connection)
            await savepoint.rollback()
            return result

        return await self.transact(undone)


class ReadReplica(Protocol):
    """A copy of the database, which may be read while it is fresh."""

    @property
    def database(self) -> Database:
        """What runs its statements."""
        ...

    def is_fresh(self) -> bool:
        """Return whether it may be read now."""
        ...


class SharedDatabase(Database):
    """A pool that callers share: each has its part of it, and who reads many rows takes no connection from the others.

    Of ten connections four are for `scans`, five for everything else that is called, one for the service. What only
    reads goes to a `replica` while that is fresh.
    """

    def __init__(self, pool: asyncpg.Pool, acquire_timeout: float = 5.0, replica: ReadReplica | None = None) -> None:
        size = int(pool.get_max_size())
        most_scans = max(1, size * 4 // 10)
        calls = max(1, size - most_scans - 1)
        super().__init__(pool, acquire_timeout, Turns("connections to the database", calls, max(1, calls * 4 // 5)))
        reading = Turns("connections for reading many rows", most_scans, max(1, most_scans // 2))
        self._scans = ScanDatabase(pool, acquire_timeout, reading)
        self._service = Database(pool, acquire_timeout)
        self._replica = replica
        self._scans.kept = self._service.kept = self.kept

    @property
    def scans(self) -> Database:
        """The database for statements that read many rows."""
        return self._scans

    @property
    def reads(self) -> Database:
        """The database for what only reads many rows and decides nothing; it may be some seconds old."""
        return self._replica.database if self._replica and self._replica.is_fresh() else self._scans

    @property
    def service(self) -> Database:
        """The database for the service's own work, which waits for no caller."""
        return self._service

    @property
    def all_failures(self) -> int:
        """How many uses failed because the database was unavailable, those of its parts included."""
        return self.failures + self._scans.failures + self._service.failures


class ScanDatabase(Database):
    """A statement that takes too long says something about the statement here, not about the database."""

    def _unavailable(self, error: Exception) -> Exception | None:
        return ScanTooLong() if isinstance(error, TimeoutError) else super()._unavailable(error)


class DispatcherDatabase(Database):
    """The database as the engine uses it.

    Every method raises StorageUnavailable instead of DatabaseUnavailable, after a lost race as well:
    the engine tries everything again later.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool, acquire_timeout=None)

    def _unavailable(self, error: Exception) -> Exception | None:
        return None if classify(error) is Fault.BUG else StorageUnavailable(f"{type(error).__name__}: {error}")


PIECE_BYTES = 1 << 20
"""How much of a long answer is read at once, unless a single row has more."""

_STEPS = (8, 16, 32, 64, 128, 256)


async def fetch_piece(
    database: Database,
    statement: Sequence[Any],
    width: Callable[[asyncpg.Record], int],
    within: Callable[[asyncpg.Connection], AbstractAsyncContextManager[None]] = nullcontext,
) -> list[asyncpg.Record]:
    """Return the first rows of a statement, as many as have PIECE_BYTES together; `width` is that of a row.

    It runs in the context that `within` makes of the connection.

    Rows may be a thousand times wider than usual, so they are read in small steps: 256 at most.
    """
    rows: list[asyncpg.Record] = []
    size = 0
    async with database.transaction() as connection, within(connection):
        cursor = await connection.cursor(*statement)
        for step in chain(_STEPS, repeat(_STEPS[-1])):
            more = await cursor.fetch(step)
            rows += more
            size += sum(map(width, more))
            if len(more) < step or size >= PIECE_BYTES:
                return rows
    raise AssertionError("the steps do not end")


async def notify_dispatchers(connection: asyncpg.Connection) -> None:
    """Make the dispatchers of all replicas poll as soon as the present transaction commits."""
    await connection.execute(*_SQL["notify_dispatchers"].bind())
