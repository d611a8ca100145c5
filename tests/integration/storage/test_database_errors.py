"""The API and the engine take the same errors of a real database for the same thing.

Fails when all of asyncpg's InterfaceError is taken for an absent database: a wrong number of
arguments would then be tried again for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from dispatcher.ports import StorageUnavailable
from dispatcher.tasks import cancel
from server.config import Settings
from server.domain.errors import DatabaseUnavailable
from server.runtime.local_dispatcher import LocalDispatcher
from server.storage.database import Database, DispatcherDatabase
from tests.support.eventually import eventually
from tests.support.locks import blocked

Provoke = Callable[[Database, asyncpg.Pool], Awaitable[Any]]
SIDES = [
    pytest.param(Database, DatabaseUnavailable, id="api"),
    pytest.param(DispatcherDatabase, StorageUnavailable, id="engine"),
]


def statement(text: str, *arguments: object, timeout: float | None = None) -> Provoke:
    """Run one statement inside a transaction."""

    async def provoke(database: Database, _: asyncpg.Pool) -> None:
        async with database.transaction() as connection:
            await connection.fetch(text, *arguments, timeout=timeout)

    return provoke


def script(text: str) -> Provoke:
    """Run several statements, as one transaction."""

    async def provoke(database: Database, _: asyncpg.Pool) -> None:
        async with database.connection() as connection:
            await connection.execute(text)

    return provoke


async def terminated(database: Database, _: asyncpg.Pool) -> None:
    await database.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def terminated_between_two_statements(database: Database, pool: asyncpg.Pool) -> None:
    async with database.transaction() as connection:
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        await pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        await gone.wait()
        await connection.execute("SELECT")


async def terminated_for_being_idle(database: Database, _: asyncpg.Pool) -> None:
    async with database.transaction() as connection:
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 1")
        await gone.wait()
        await connection.execute("SELECT")


async def closed_connection(database: Database, _: asyncpg.Pool) -> None:
    async with database.connection() as connection:
        await connection.close()
        await connection.execute("SELECT")


async def closed_pool(database: Database, pool: asyncpg.Pool) -> None:
    await pool.close()
    await database.execute("SELECT")


async def lock_timeout(database: Database, pool: asyncpg.Pool) -> None:
    async with pool.acquire() as other, other.transaction(), database.transaction() as connection:
        await other.execute("LOCK TABLE mailings")
        await connection.execute("SET LOCAL lock_timeout = 1")
        await connection.execute("LOCK TABLE mailings")


async def serialization(database: Database, pool: asyncpg.Pool) -> None:
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.execute("SELECT FROM buckets")
        await pool.execute("UPDATE buckets SET journal_seq = 1 WHERE bucket = 0")
        await connection.execute("UPDATE buckets SET journal_seq = 2 WHERE bucket = 0")


async def deadlock(database: Database, pool: asyncpg.Pool) -> None:
    async with pool.acquire() as other, other.transaction(), database.transaction() as connection:
        await other.execute("SET LOCAL deadlock_timeout = '1 min'")  # so that the other one is told
        await connection.execute("SET LOCAL deadlock_timeout = 1")
        await other.execute("LOCK TABLE mailings")
        await connection.execute("LOCK TABLE clients")
        waiting = asyncio.create_task(other.execute("LOCK TABLE clients"))
        await blocked(pool, 1)
        try:
            await connection.execute("LOCK TABLE mailings")
        finally:
            await connection.execute("ROLLBACK")
            await waiting


AWAY = {
    "terminated": terminated,
    "terminated between two statements": terminated_between_two_statements,
    "terminated for being idle": terminated_for_being_idle,
    "closed connection": closed_connection,
    "closed pool": closed_pool,
    "read-only": script("SET TRANSACTION READ ONLY; DELETE FROM mailings"),
    "lock timeout": lock_timeout,
    "statement timeout": script("SET LOCAL statement_timeout = 1; SELECT pg_sleep(60)"),
    "command timeout": statement("SELECT pg_sleep(60)", timeout=0.01),
}
RACES = {"serialization": serialization, "deadlock": deadlock}
BUGS = {
    "wrong number of arguments": statement("SELECT $1::int, $2::int", 1),
    "value that cannot be encoded": statement("SELECT $1::int", "connection is closed"),
    "value out of range": statement("SELECT $1::int", 2**40),
    "character that text cannot have": statement("SELECT $1::text", "\0"),
    "lone surrogate": statement("SELECT $1::text", "\ud800"),
    "no such column": statement("SELECT nothing FROM mailings"),
    "key that is taken": script("INSERT INTO buckets (bucket) VALUES (0)"),
    "division by zero": statement("SELECT 1 / 0"),
}


@pytest.fixture
async def own_pool(database_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool that a test may break."""
    async with asyncpg.create_pool(database_dsn, min_size=1, max_size=3) as pool:
        yield pool


@pytest.mark.parametrize(("side", "unavailable"), SIDES)
@pytest.mark.parametrize("provoke", AWAY.values(), ids=AWAY)
async def test_an_absent_database_is_unavailable(
    own_pool: asyncpg.Pool, side: type[Database], unavailable: type[Exception], provoke: Provoke
) -> None:
    database = side(own_pool)
    with pytest.raises(unavailable):
        await provoke(database, own_pool)
    assert database.failures == 1


@pytest.mark.parametrize("provoke", RACES.values(), ids=RACES)
async def test_a_lost_race_is_repeated_by_whoever_can(own_pool: asyncpg.Pool, provoke: Provoke) -> None:
    """The API's transactions are repeated at once, the engine does its work later."""
    with pytest.raises((asyncpg.DeadlockDetectedError, asyncpg.SerializationError)):
        await provoke(Database(own_pool), own_pool)
    with pytest.raises(StorageUnavailable):
        await provoke(DispatcherDatabase(own_pool), own_pool)


@pytest.mark.parametrize(("side", "unavailable"), SIDES)
@pytest.mark.parametrize("provoke", BUGS.values(), ids=BUGS)
async def test_a_mistake_of_ours_is_none(
    own_pool: asyncpg.Pool, side: type[Database], unavailable: type[Exception], provoke: Provoke
) -> None:
    database = side(own_pool)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await provoke(database, own_pool)
    assert database.failures == 0
    assert await database.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize(("side", "unavailable"), SIDES)
@pytest.mark.parametrize(
    "reason", [{"port": 1}, {"database": "nobody_made_it"}, {"user": "nobody"}], ids=lambda one: next(iter(one))
)
async def test_no_connection_to_be_had_is_unavailable(
    database_dsn: str, side: type[Database], unavailable: type[Exception], reason: dict[str, Any]
) -> None:
    """Whatever the server says of it: credentials, too, may be mended while the service runs."""
    async with asyncpg.create_pool(database_dsn, min_size=0, **reason) as pool:
        database = side(pool)
        with pytest.raises(unavailable):
            await database.fetch("SELECT 1")
        assert database.failures == 1


@pytest.mark.parametrize(("side", "unavailable"), SIDES)
async def test_a_cancelled_caller_is_no_failure(
    own_pool: asyncpg.Pool, side: type[Database], unavailable: type[Exception]
) -> None:
    database = side(own_pool)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await database.fetch("SELECT pg_sleep(60)")
    assert database.failures == 0
    assert await database.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize("side", [Database, DispatcherDatabase])
async def test_a_cancelled_caller_leaves_no_lock_behind(pool: asyncpg.Pool, side: type[Database]) -> None:
    """Not even between preparing a statement and running it, which the driver does without a Sync."""
    prepared = asyncio.Event()

    async def ask() -> None:
        async with side(pool).connection() as connection:
            await connection.prepare("SELECT count(*) FROM mailings")
            prepared.set()
            await asyncio.Event().wait()

    asking = asyncio.create_task(ask())
    await prepared.wait()
    await cancel(asking)
    async with pool.acquire() as one, pool.acquire() as other, one.transaction(), other.transaction():
        for connection in (one, other):
            await connection.execute("SAVEPOINT here; LOCK TABLE mailings NOWAIT; ROLLBACK TO here")


async def test_a_dispatcher_counts_its_own_failures(own_pool: asyncpg.Pool) -> None:
    dispatch, api = LocalDispatcher(own_pool, [], Settings()), Database(own_pool)
    await own_pool.close()
    running = asyncio.create_task(dispatch.run())

    async def failures() -> object:
        return dispatch.samples()["mailing_database_errors_total"]["dispatcher",]

    await eventually(failures, bool)
    await dispatch.stop(grace=0)
    await running
    assert api.failures == 0
