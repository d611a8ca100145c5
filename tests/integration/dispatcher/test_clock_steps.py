"""The database's clock is set: sending goes on, and nobody gets a message twice for it.

A clock that is set back is the same as every stored moment being so much later; so the moments are
shifted, all in one transaction. Fails when one that means "now" or "soon" is believed as it stands.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.heartbeat import Heartbeat, ReplicaStatus
from dispatcher.model.endpoints import SlotRequest
from dispatcher.model.settings import SettingOverrides
from dispatcher.model.states import AudienceMode, Status, Suspension
from dispatcher.poll_backoff import LoopClock
from dispatcher.tasks import in_background
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

MOMENTS = {
    "batches": ["due_at", "opened_at", "lease_until", "leased_at"],
    "messages": ["due_at", "created_at"],
    "mailings": ["starts_at", "ends_at", "recheck_at", "created_at", "updated_at"],
    "endpoints": ["changed_at", "probe_at"],
    "rate_slots": ["since", "next_at"],
    "replicas": ["started_at", "beat_at", "beats_until"],
    "expansions": ["started_at"],
    "clients": ["created_at", "updated_at"],
}


async def set_clock(pool: asyncpg.Pool, by: timedelta) -> None:
    """Shift every stored moment as if the clock had been set."""
    while True:
        try:
            return await _shift(pool, by)
        except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
            continue  # other statements lock the tables in another order


async def _shift(pool: asyncpg.Pool, by: timedelta) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '2s'")
        await connection.execute(f"LOCK TABLE {', '.join(MOMENTS)}")
        for table, columns in MOMENTS.items():
            assignments = ", ".join(f"{column} = {column} - $1::interval" for column in columns)
            await connection.execute(f"UPDATE {table} SET {assignments}", by)


STEPS = [timedelta(hours=-1), timedelta(minutes=-10), timedelta(minutes=-1), timedelta(hours=1)]


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_sending_goes_on_after_a_step(pool: asyncpg.Pool, start: Start, step: timedelta) -> None:
    """A mailing under way with a rate, one that fails at first, and one that nobody has begun."""
    await add_clients(pool, 600)
    plain, rated = await add_mailing(pool), await add_mailing(pool)
    await pool.execute("UPDATE mailings SET max_rate = 400 WHERE id = $1", rated)
    first = start(sender := ScriptedSender(delay=0.01), max_concurrency=16)
    await sender.until(200)
    await set_clock(pool, step)
    first.hint()  # its heartbeat sees a clock that goes on: a real step makes it do this
    await completed(pool, plain, within=10.0)
    await completed(pool, rated, within=10.0)
    assert max(sender.counts.values()) == 1
    assert await statuses(pool, rated) == {Status.DELIVERED: 600}
    assert await audit(pool) == []


@pytest.mark.parametrize("step", [step for step in STEPS if abs(step) > timedelta(minutes=5)], ids=str)
async def test_a_restart_after_a_step_finds_retries_and_open_work(
    pool: asyncpg.Pool, start: Start, step: timedelta
) -> None:
    await add_clients(pool, 300)
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN, backoff=60.0)
    failing = start(failed := ScriptedSender(lambda client_id, _: answer(503 if client_id % 3 == 0 else 200)))
    await failed.until(300)
    await failing.stop(grace=5.0)

    async def replicas() -> int:
        count: int = await pool.fetchval("SELECT count(*) FROM replicas")
        return count

    await eventually(replicas, lambda count: count == 0)  # it has deregistered
    pending = (await statuses(pool, mailing))[Status.PENDING]
    assert pending >= 90
    await set_clock(pool, step)
    start(sender := ScriptedSender())
    await sender.until(pending, within=8.0)
    await add_clients(pool, 5, first=5000)
    await sender.until(pending + 5, within=8.0)  # rechecks go on as well

    async def delivered() -> int:
        return (await statuses(pool, mailing))[Status.DELIVERED]

    await eventually(delivered, lambda count: count == 305)
    assert max(sender.counts.values()) == 1


async def test_a_lease_lasts_no_longer_because_of_the_clock(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 16)
    mailing = await add_mailing(pool)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (expansion,) = await storage.plan.expandable(100)
    for bucket in expansion.positions:
        await storage.plan.expand(expansion, bucket, 500, 1000)
    definition = (await storage.queue.definitions([mailing]))[mailing]
    (batch,) = await storage.queue.claim(definition, 0, 1, 20.0, None)
    await set_clock(pool, timedelta(hours=-1))
    await storage.plan.expedite()
    left = await pool.fetchval(
        "SELECT extract(epoch FROM lease_until - now())::float8 FROM batches WHERE no = $1", batch.no
    )
    assert 19 < left <= 20
    assert await storage.queue.claim(definition, 0, 1, 20.0, None) == []


async def test_slots_and_probes_are_due_after_a_step(pool: asyncpg.Pool) -> None:
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.rates.reserve([SlotRequest("mailing/1", 1000.0, 50)])
    await storage.health.open_breaker("default", 15.0, "HTTP 503", Suspension.NONE)
    await set_clock(pool, timedelta(hours=-1))
    (state,) = (await storage.health.breakers(["default"])).values()
    assert state.probe_in == 0
    assert await storage.health.begin_probe("default", 3.0)
    assert not await storage.health.begin_probe("default", 3.0)
    read_at, given = await storage.rates.reserve([SlotRequest("mailing/1", 1000.0, 50)])
    assert given["mailing/1"].since - read_at < 0.3


class _AtRest:
    """A replica with nothing to do."""

    busy = False

    def status(self) -> dict[str, Any]:
        return {}


class _SteppedTime:
    """Answers beats by a clock that was set between two of them."""

    def __init__(self, by: float) -> None:
        self.by, self.beats, self.clock = by, 0, LoopClock()

    async def beat(self, age: float, alive_for: float, status: Mapping[str, Any]) -> tuple[float, SettingOverrides]:
        self.beats += 1
        return self.clock.monotonic() + 1e9 + (self.by if self.beats > 2 else 0.0), SettingOverrides()

    async def leave(self) -> None:
        """Nothing to leave."""


@pytest.mark.parametrize(("by", "seen"), [(-3600.0, True), (3600.0, True), (0.1, False)])
async def test_a_step_is_noticed_and_logged(caplog: pytest.LogCaptureFixture, by: float, seen: bool) -> None:
    stepped, steps = _SteppedTime(by), list[float]()
    heartbeat = Heartbeat(stepped, stepped.clock, cast("ReplicaStatus", _AtRest()))
    heartbeat.clock_set.connect(steps.append)
    with caplog.at_level(logging.WARNING):
        await _beats(heartbeat, stepped, 4)
    assert [round(step) for step in steps] == ([round(by)] if seen else [])
    assert (f"clock was set by {by:+.1f} s" in caplog.text) is seen


async def _beats(heartbeat: Heartbeat, stepped: _SteppedTime, count: int) -> None:
    async def beats() -> int:
        heartbeat.hint()
        return stepped.beats

    async with in_background(heartbeat.run(), "heartbeat"):
        await eventually(beats, lambda found: found >= count)
