"""Replicas on a real database: they beat, take over settings, and stop when all is stopped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.mailings import Mailing
from dispatcher.model.states import MailingState, Status
from dispatcher.ports import Sender, StorageUnavailable
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.migrate import load_migrations
from server.storage.queries import load_queries
from server.storage.work_queue import PostgresWorkQueue
from tests.integration.dispatcher.conftest import SETTINGS, Start
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

ENDPOINT = Endpoint("default", "http://127.0.0.1:1/", "token", total_timeout=2.0, max_concurrency=500)


@asynccontextmanager
async def replica(pool: asyncpg.Pool, sender: Sender, **settings: float) -> AsyncIterator[tuple[Dispatcher, UUID]]:
    """A dispatcher that is seen, until the block ends."""
    replica_id = uuid4()
    dispatcher = Dispatcher(
        dispatcher_storage(DispatcherDatabase(pool), replica_id),
        [(ENDPOINT, sender)],
        replace(SETTINGS, **settings),  # type: ignore[arg-type]
    )
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher, replica_id
    finally:
        await dispatcher.stop(grace=5.0)
        await running


async def status_of(pool: asyncpg.Pool, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the status of the only replica, once it holds."""

    async def read() -> dict[str, Any]:
        text = await pool.fetchval("SELECT status FROM replicas WHERE beats_until > now()")
        return dict(json.loads(text)) if text else {}

    return await eventually(read, holds)


async def test_a_replica_says_that_it_lives_and_takes_its_leave(pool: asyncpg.Pool) -> None:
    async with replica(pool, ScriptedSender()) as (_, replica_id):
        await status_of(pool, lambda status: "poll_interval" in status)
        row = await pool.fetchrow("SELECT id, beats_until - now() < interval '4.6 s' AS soon FROM replicas")
        assert row is not None
        assert (row["id"], row["soon"]) == (replica_id, True)
    assert await pool.fetchval("SELECT count(*) FROM replicas") == 0


async def test_it_tells_what_it_is_doing(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 1500)
    sender = ScriptedSender(lambda client, number: answer(503 if client // 16 % 4 == 0 and number == 1 else 200))
    sender.gate.clear()
    async with replica(pool, sender):
        mailing_id = await add_mailing(pool)
        working = await status_of(pool, lambda status: status.get("in_flight", 0) > 0)
        assert working["mailing_ids"] == [mailing_id]
        assert working["backlog"] > 0
        assert working["in_flight"] == working["endpoints"][0]["in_flight"] <= working["concurrency_limit"]
        sender.gate.set()
        # What is tried again is recorded with its whole batch.
        status = await status_of(pool, lambda status: status["endpoints"][0]["failure_ratio"] > 0)
        assert status["rate"] > 0
        assert status["latency_p50"] is not None
        assert status["endpoints"][0]["last_error"] == "gateway error (HTTP 503)"
        assert status["endpoints"][0]["failure_ratio"] < 1


async def test_whoever_died_is_swept_away(pool: asyncpg.Pool) -> None:
    await pool.execute(
        "INSERT INTO replicas (id, host, pid, started_at, beats_until, status)"
        " SELECT gen_random_uuid(), 'gone', 1, now(), now() - n * interval '59 s', '{}' FROM generate_series(1, 2) n"
    )
    async with replica(pool, ScriptedSender()):
        await status_of(pool, bool)
        assert await pool.fetchval("SELECT count(*) FROM replicas WHERE host = 'gone'") == 1


async def test_one_that_was_silent_for_long_is_there_again(pool: asyncpg.Pool) -> None:
    async with replica(pool, ScriptedSender()) as (dispatcher, _):
        await status_of(pool, bool)
        started_at = await pool.fetchval("SELECT started_at FROM replicas")
        for change in ("UPDATE replicas SET beats_until = now() - interval '1 h'", "DELETE FROM replicas"):
            await pool.execute(change)
            dispatcher.hint()
            await status_of(pool, bool)
        drift = await pool.fetchval("SELECT started_at - $1 FROM replicas", started_at)
        assert abs(drift.total_seconds()) < 1


async def test_settings_are_taken_over_while_it_works(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 2000)
    sender = ScriptedSender(delay=0.02)
    async with replica(pool, sender) as (dispatcher, _):
        await add_mailing(pool)
        await sender.until(100)
        await pool.execute("UPDATE dispatch_settings SET max_concurrency = 2, poll_max = 0.05, version = version + 1")
        await status_of(pool, lambda status: status.get("concurrency_limit") == 2)
        assert dispatcher.poll_backoff.poll_max == 0.05
        await eventually(lambda: asyncio.sleep(0, sender.in_flight), lambda count: count <= 2)
        await pool.execute("UPDATE dispatch_settings SET max_concurrency = 9999, version = version + 1")
        # Never more than the endpoint's own limit.
        await status_of(pool, lambda status: 2 < status.get("concurrency_limit", 0) <= ENDPOINT.max_concurrency)


async def test_the_emergency_stop_gives_leases_up_and_lets_no_request_start(pool: asyncpg.Pool) -> None:
    """Fails without the condition in `definitions`: leases are kept."""
    await add_clients(pool, 3000)
    sender = ScriptedSender(delay=0.05)
    async with replica(pool, sender, max_concurrency=5), replica(pool, sender, max_concurrency=5):
        mailing_id = await add_mailing(pool)
        await sender.until(100)
        await pool.execute("UPDATE dispatch_settings SET stopped = true, version = version + 1")
        stopped_at = time.monotonic()
        held = "SELECT count(*) FROM batches WHERE lease_until > now()"
        await eventually(lambda: pool.fetchval(held), lambda count: count == 0, within=3.0)
        assert max(at for *_, at in sender.requests) < stopped_at + 1.0
        assert (await statuses(pool, mailing_id))[Status.PENDING] > 0
        assert await audit(pool) == []
        requests = len(sender.requests)
        late = await add_mailing(pool, state=MailingState.SCHEDULED)
        await eventually(lambda: statuses(pool, late), lambda found: found[Status.PENDING] == 3000)
        assert len(sender.requests) == requests
        sender.delay = 0.0
        await pool.execute("UPDATE dispatch_settings SET stopped = false, version = version + 1")
        await pool.execute("SELECT pg_notify('mailing', '')")
        for one in (mailing_id, late):
            await eventually(lambda one=one: statuses(pool, one), lambda found: found == {Status.DELIVERED: 3000})  # type: ignore[misc]
    assert set(sender.counts.values()) == {1}
    assert await audit(pool) == []


async def test_the_stop_holds_for_a_replica_that_lost_its_database(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when leases stay valid for longer without being confirmed."""
    lost = asyncio.Event()

    class Lost(PostgresWorkQueue):
        async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
            if lost.is_set():
                raise StorageUnavailable("lost")
            return await super().definitions(ids)

    await add_clients(pool, 3000)
    sender = ScriptedSender(delay=0.02)
    start(sender, queue=Lost(DispatcherDatabase(pool), uuid4()), max_concurrency=10)
    await add_mailing(pool)
    await sender.until(100)
    lost.set()
    await pool.execute("UPDATE dispatch_settings SET stopped = true, version = version + 1")
    stopped_at = time.monotonic()
    await eventually(lambda: asyncio.sleep(0.3, sender.in_flight), lambda count: count == 0)
    assert len(sender.requests) < 3000
    assert max(at for *_, at in sender.requests) < stopped_at + 1.0


@pytest.mark.parametrize("name", ["claim", "scan", "definitions"])
def test_every_way_to_a_request_asks_for_the_emergency_stop(name: str) -> None:
    statements = {name: query.text for name, query in load_queries("work_queue.sql").items()}
    (function,) = [one for one in load_migrations() if "CREATE FUNCTION claim_v1" in one.script]
    statements["claim"] += function.script
    assert "dispatch_settings WHERE stopped" in statements[name]
