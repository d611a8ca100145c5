"""An endpoint that is down: sending stops for all replicas, its messages wait, and it comes back by itself."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from dispatcher import breaker_sync as guard
from dispatcher.breaker import MIN_REQUESTS
from dispatcher.dispatcher import Dispatcher
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import BreakerState, ErrorClass, Status, Suspension
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.dispatcher.conftest import SETTINGS, Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer, broken
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

DELIVERED_AGO = """
SELECT s ->> 'delivered_ago' FROM replicas, jsonb_array_elements(status -> 'endpoints') AS s
WHERE s ->> 'delivered_ago' IS NOT NULL LIMIT 1
"""


class Outage(ScriptedSender):
    """An endpoint that is down until `up` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _, __: answer() if self.up else broken(ErrorClass.CONNECT, sent=False), delay=0.002)
        self.up = False


async def breaker(pool: asyncpg.Pool) -> int | None:
    state: int | None = await pool.fetchval("SELECT breaker FROM endpoints WHERE name = 'default'")
    return state


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes come quickly."""
    monkeypatch.setattr(guard, "PROBE_FIRST", 0.2)
    monkeypatch.setattr(guard, "PROBE_MOST", 0.4)


async def test_the_time_an_endpoint_is_down_costs_no_attempts(pool: asyncpg.Pool, start: Start) -> None:
    """Two attempts are allowed; the outage takes many. Fails when what never left counts."""
    await add_clients(pool, 2000)
    mailing = await add_mailing(pool, max_attempts=2, backoff=0.01)
    sender = Outage()
    start(sender)
    await eventually(lambda: breaker(pool), lambda state: state == BreakerState.OPEN)
    probes = "SELECT probes FROM endpoints"
    await eventually(lambda: pool.fetchval(probes), lambda made: made >= 3)
    made = len(sender.requests)
    assert made < 500, "what is down is not hammered"
    sender.up = True
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 2000}
    assert await breaker(pool) == BreakerState.CLOSED
    assert await audit(pool) == []


async def test_an_outage_does_not_end_a_mailing_of_one_message(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 1)
    mailing = await add_mailing(pool, max_attempts=1, backoff=0.01)
    sender = Outage()
    start(sender)
    await sender.until(4)
    sender.up = True
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 1}
    assert await pool.fetchval("SELECT attempts = forgiven + 1 FROM ledger")
    assert await audit(pool) == []


async def test_what_may_have_arrived_is_sent_no_more_than_allowed(pool: asyncpg.Pool, start: Start) -> None:
    """Every answer is unreadable, so that the breaker opens: each message leaves once all the same."""
    await add_clients(pool, 3 * MIN_REQUESTS)
    mailing = await add_mailing(pool, max_attempts=1, backoff=0.01)
    start(sender := ScriptedSender(lambda _, __: answer(200, b"<html>")))
    await eventually(lambda: breaker(pool), lambda state: state == BreakerState.OPEN)
    await eventually(lambda: pool.fetchval("SELECT probes FROM endpoints"), lambda made: made >= 3)
    assert max(sender.counts.values()) == 1
    assert set(await statuses(pool, mailing)) <= {Status.PENDING, Status.FAILED}


async def test_one_probe_at_a_time_over_all_replicas(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when begin_probe does not look at probe_at (seen with the condition taken out)."""
    await add_clients(pool, 2000)
    mailing = await add_mailing(pool)
    first, second = Outage(), Outage()
    start(first)
    start(second)
    await eventually(lambda: breaker(pool), lambda state: state == BreakerState.OPEN)
    await eventually(lambda: pool.fetchval("SELECT probes FROM endpoints"), lambda made: made >= 1)
    before = len(first.requests) + len(second.requests)
    begun = await pool.fetchval("SELECT probes FROM endpoints")
    await eventually(lambda: pool.fetchval("SELECT probes FROM endpoints"), lambda made: made >= begun + 4)
    probes = await pool.fetchval("SELECT probes FROM endpoints") - begun
    requests = len(first.requests) + len(second.requests) - before
    assert requests <= probes + 1
    first.up = second.up = True
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 2000}


async def test_a_replica_that_saw_no_failure_stops_as_well(pool: asyncpg.Pool, start: Start) -> None:
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.health.open_breaker("default", 300.0, "seen by another replica", Suspension.NONE)
    await add_clients(pool, 100)
    await add_mailing(pool)
    sender = ScriptedSender()
    dispatcher = start(sender)
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM batches"), lambda batches: batches == 16)
    other = await add_mailing(pool, endpoint="other")
    await eventually(lambda: statuses(pool, other), lambda found: found.total() == 100)
    dispatcher.hint()
    assert not sender.requests


async def test_a_replica_without_a_way_there_stops_nobody_else(pool: asyncpg.Pool, start: Start) -> None:
    """It stops itself, tries for itself, and takes part again; the endpoint is open for all that time."""
    await add_clients(pool, 3000)
    mailing = await add_mailing(pool, max_attempts=1, backoff=0.01)
    cut_off, well = Outage(), ScriptedSender(delay=0.05)
    first = start(well, max_concurrency=16)
    await well.until(50)
    await eventually(lambda: pool.fetchval(DELIVERED_AGO), lambda ago: ago is not None)
    second = start(cut_off)
    alone = second.pools["default"].breaker
    await eventually(lambda: alone.alone)
    sent, tried = len(well.requests), len(cut_off.requests)
    await cut_off.until(tried + 2)
    assert len(cut_off.requests) - tried <= 3
    await well.until(sent + 100)
    assert first.pools["default"].breaker.closed
    assert await breaker(pool) in (None, BreakerState.CLOSED)
    cut_off.up = True
    await eventually(lambda: alone.closed)
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 3000}
    assert await audit(pool) == []


async def test_another_endpoint_is_not_affected(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 3 * MIN_REQUESTS)
    down, well = Outage(), ScriptedSender()
    endpoints = [
        (Endpoint("default", "http://127.0.0.1:1/", ""), down),
        (Endpoint("well", "http://127.0.0.1:2/", ""), well),
    ]
    stuck = await add_mailing(pool, priority=10)
    dispatcher = Dispatcher(dispatcher_storage(DispatcherDatabase(pool), uuid4()), endpoints, SETTINGS)
    task = asyncio.create_task(dispatcher.run())
    await eventually(lambda: breaker(pool), lambda state: state == BreakerState.OPEN)
    mailing = await add_mailing(pool, endpoint="well")
    dispatcher.hint()
    await completed(pool, mailing)
    assert len(well.requests) == 3 * MIN_REQUESTS
    assert (await statuses(pool, stuck))[Status.DELIVERED] == 0
    await dispatcher.stop(1.0)
    await task


async def test_answers_about_messages_do_not_open_the_breaker(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 10 * MIN_REQUESTS)
    ends: list[Answer] = [answer(404), answer(200, b'{"code": 5}'), answer(302)]
    await add_mailing(pool, max_attempts=1)
    start(sender := ScriptedSender(lambda client, _: ends[client // 16 % 3]))
    await sender.until(10 * MIN_REQUESTS)
    assert await breaker(pool) is None
