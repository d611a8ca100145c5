"""Two releases beside each other: the older one leaves the work to the newer one once the schema is newer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.states import Status
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage, listen
from server.storage.migrate import Migration, load_migrations, migrate
from server.storage.schema_watch import NEWER_SCHEMA, SchemaWatch
from tests.integration.dispatcher.conftest import ENDPOINT, SETTINGS
from tests.support.endpoints import ScriptedSender
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

NEXT = "9999"
COUNT = 3000


@asynccontextmanager
async def replica(
    pool: asyncpg.Pool, sender: ScriptedSender, schema: SchemaWatch | None = None
) -> AsyncIterator[Dispatcher]:
    """A dispatcher with its notifications, of this release or of one that knows `schema`, until the block ends."""
    database = DispatcherDatabase(pool)
    dispatcher = Dispatcher(dispatcher_storage(database, uuid4(), None, schema), [(ENDPOINT, sender)], SETTINGS)
    listening = asyncio.create_task(listen(database, dispatcher.hint))
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        await dispatcher.stop(grace=5.0)
        await running
        listening.cancel()


async def sent(sender: ScriptedSender, count: int) -> None:
    async def requests() -> int:
        return len(sender.requests)

    await eventually(requests, lambda found: found >= count)


async def test_a_mailing_passes_from_one_release_to_the_next_in_the_middle(
    pool: asyncpg.Pool, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the older release goes on claiming, keeps what it holds, or sends anything twice."""
    await add_clients(pool, COUNT)
    mailing = await add_mailing(pool)
    older, newer = ScriptedSender(delay=0.2), ScriptedSender()
    async with replica(pool, older) as before:
        await sent(older, 100)
        known = load_migrations()
        with monkeypatch.context() as patch:
            expanding = Migration(NEXT, f"{NEXT}_more.sql", "ALTER TABLE mailings ADD COLUMN more int DEFAULT 1")
            patch.setattr("server.storage.migrate.load_migrations", lambda: [*known, expanding])
            assert await migrate(database_dsn) == [NEXT]

        async def leases() -> int:
            return len(before.registry.leases)

        reasons = "SELECT status->>'poll_reason' FROM replicas"
        await eventually(lambda: pool.fetchval(reasons), lambda reason: reason == NEWER_SCHEMA)
        await eventually(leases, lambda held: held == 0)
        at_the_handover = len(older.requests)
        assert at_the_handover < COUNT
        async with replica(pool, newer, SchemaWatch(NEXT)):
            await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: COUNT})
    assert len(older.requests) == at_the_handover
    assert len(newer.requests) == COUNT - at_the_handover
    assert not older.counts.keys() & newer.counts.keys()
    assert await audit(pool) == []


async def test_a_release_goes_on_when_the_newer_schema_is_taken_back(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 10)
    await pool.execute("INSERT INTO schema_migrations VALUES ($1)", NEXT)
    sender, schema = ScriptedSender(), SchemaWatch()
    schema.seen(NEXT)
    async with replica(pool, sender, schema):
        mailing = await add_mailing(pool)
        reasons = "SELECT status->>'poll_reason' FROM replicas"
        await eventually(lambda: pool.fetchval(reasons), lambda reason: reason == NEWER_SCHEMA)
        assert sender.requests == []
        await pool.execute("DELETE FROM schema_migrations WHERE version = $1", NEXT)
        await pool.execute("NOTIFY mailing")
        await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 10})
