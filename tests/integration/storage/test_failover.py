"""After a failover: no session stays on a server that is read-only, and notifications come again.

Fails when an error that speaks of the server leaves its connection in the pool: asyncpg hands it
out again for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from dispatcher.model.states import Status
from dispatcher.ports import StorageUnavailable
from dispatcher.tasks import in_background
from server.config import Settings
from server.domain.errors import DatabaseUnavailable
from server.observability.health import DatabaseWatch
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import CHANNEL, listen
from server.storage.pool import DatabaseError, open_pool
from tests.conftest import PostgresServer
from tests.integration.dispatcher.conftest import Start, start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

__all__ = ["start"]

WRITE = "UPDATE buckets SET journal_seq = journal_seq WHERE bucket = 0"
SIZE = 3


async def demote(pool: asyncpg.Pool) -> None:
    """Make every session of the pool read-only, as those to a server that is a standby from now on."""
    sessions = [await pool.acquire() for _ in range(SIZE)]
    for session in sessions:
        await session.execute("SET default_transaction_read_only = on")
        await pool.release(session)


async def write_read_only(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SET default_transaction_read_only = on")
        await connection.execute(WRITE)


@pytest.fixture
async def own_pool(database_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_dsn, Settings(), SIZE) as pool:
        yield pool


@pytest.mark.parametrize(
    ("side", "unavailable"), [(Database, DatabaseUnavailable), (DispatcherDatabase, StorageUnavailable)]
)
async def test_a_read_only_session_is_used_once(
    own_pool: asyncpg.Pool, side: type[Database], unavailable: type[Exception]
) -> None:
    database = side(own_pool)
    await demote(own_pool)
    with pytest.raises(unavailable):
        async with database.transaction() as connection:
            await connection.execute(WRITE)
    for _ in range(SIZE):
        await database.execute(WRITE)
    assert database.failures == 1


async def test_health_asks_whether_it_may_write(own_pool: asyncpg.Pool) -> None:
    database = Database(own_pool)
    assert await database.answers(1.0)
    await demote(own_pool)
    assert await database.answers(1.0) is False
    assert await database.answers(1.0)


async def test_a_read_only_server_is_not_started_on(database_dsn: str, pool: asyncpg.Pool) -> None:
    name = await pool.fetchval("SELECT current_database()")
    await pool.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match="every server of it is read-only"):
        async with open_pool(database_dsn, Settings()):
            raise AssertionError("it opened")
    sign = "&" if "?" in database_dsn else "?"
    async with open_pool(f"{database_dsn}{sign}target_session_attrs=any", Settings()) as reading:
        assert await reading.fetchval("SELECT 1") == 1


async def test_notifications_are_taken_up_again_after_every_loss(own_pool: asyncpg.Pool, pool: asyncpg.Pool) -> None:
    heard, database = asyncio.Event(), DispatcherDatabase(own_pool)
    losses = [
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE query LIKE 'LISTEN%' AND datname = current_database()",
        None,  # another connection of the pool turns out to be read-only
    ] * 2
    async with in_background(listen(database, heard.set, pause=0.02), "listener"), asyncio.timeout(10):
        for loss in losses:
            await heard.wait()  # it listens
            heard.clear()
            await pool.execute(f"NOTIFY {CHANNEL}")
            await heard.wait()
            heard.clear()
            if loss is not None:
                await pool.execute(loss)
                continue
            with pytest.raises(StorageUnavailable):
                await write_read_only(database)


@asynccontextmanager
async def read_only(server: PostgresServer) -> AsyncIterator[None]:
    """Make the server read-only inside the block, for sessions that there are and for new ones."""
    admin = await asyncpg.connect(server.dsn())
    try:
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        yield
    finally:
        await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()


async def test_sending_goes_on_by_itself_after_a_read_only_time(
    postgres_server: PostgresServer, pool: asyncpg.Pool, start: Start
) -> None:
    await add_clients(pool, 3000)
    mailing = await add_mailing(pool)
    dispatcher = start(sender := ScriptedSender(delay=0.01), max_concurrency=32)
    ups: asyncio.Queue[bool] = asyncio.Queue()
    await sender.until(200)
    async with DatabaseWatch(Database(pool), ups.put, interval=0.05).running(), asyncio.timeout(20):
        async with read_only(postgres_server):
            assert await ups.get() is False

            async def failing() -> bool:
                return dispatcher.recording.failing

            await eventually(failing, bool)
        assert await ups.get() is True
        await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 3000}
    assert max(sender.counts.values()) == 1
    assert await audit(pool) == []
