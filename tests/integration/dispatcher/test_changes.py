"""Mailings that are changed, stopped and retried while dispatchers are at work on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from dispatcher.model.states import AudienceMode, MailingState, Status
from dispatcher.retry_policy import OPEN_BATCHES
from server.domain.filters import ClientFilter
from server.domain.mailings import MailingDefinition
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.installation import Installation
from server.storage.mailing_retry import MailingRetry
from server.storage.mailings import MailingStore
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import BUCKETS, add_clients, add_mailing, audit, database_now, statuses


async def update(pool: asyncpg.Pool, mailing_id: int, **fields: Any) -> MailingState:
    """Change fields as UpdateMailing does; return the state after it."""
    store = MailingStore(Database(pool), Installation(BUCKETS, frozenset(), UUID(int=0)), lambda: None)
    patch = MailingDefinition(**{"text": "", **fields})
    return (await store.update(mailing_id, "", patch, set(fields))).state


async def retry(pool: asyncpg.Pool, mailing_id: int, *chosen: Status) -> int:
    return await MailingRetry(Database(pool), lambda: None).retry(mailing_id, chosen)


async def ahead(pool: asyncpg.Pool) -> datetime:
    return await database_now(pool) + timedelta(hours=1)


async def leased(pool: asyncpg.Pool) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM batches WHERE lease_until > now()")
    return count


async def state_of(pool: asyncpg.Pool, mailing_id: int) -> MailingState:
    return MailingState(await pool.fetchval("SELECT state FROM mailings WHERE id = $1", mailing_id))


async def test_another_filter_takes_in_who_matches_now_and_nobody_twice(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the update leaves the expansions as they are."""
    old = await add_clients(pool, 40, 1000, tag="old")
    new = await add_clients(pool, 40, 2000, tag="new")
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN, where='{"tags": ["old"]}')
    start(sender := ScriptedSender())
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 40})
    await update(pool, mailing, filter=ClientFilter(tags=("old", "new")))
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 80})
    late = await add_clients(pool, 3, 3000, tag="new")
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 83})
    assert sender.counts == Counter({mailing << 32 | client: 1 for client in [*old, *new, *late]})
    assert await audit(pool) == []


@pytest.mark.parametrize("far", [False, True], ids=["not begun", "half way"])
async def test_a_step_of_the_old_filter_moves_nothing_of_the_new_pass(pool: asyncpg.Pool, far: bool) -> None:
    """As when a step has read the mailing before the update and gets the lock after it.

    Fails when a new pass begins at the position 0, where a step of the old one may stand.
    """
    await add_clients(pool, 160)
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN, where='{"tags": ["nobody"]}')
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (stale,) = await storage.plan.expandable(OPEN_BATCHES)
    if far:
        stale.positions[0] = (await storage.plan.expand(stale, 0, 500, 3)).position
    await update(pool, mailing, filter=ClientFilter())
    assert not (await storage.plan.expand(stale, 0, 500, 1000)).moved
    (fresh,) = await storage.plan.expandable(OPEN_BATCHES)
    assert not (await storage.plan.expand(replace(stale, version=fresh.version), 0, 500, 1000)).moved
    assert (await storage.plan.expand(fresh, 0, 500, 1000)).inserted == 10


async def test_a_start_moved_into_the_future_stops_the_mailing_until_then(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the update leaves the state RUNNING."""
    clients = await add_clients(pool, 800)
    mailing = await add_mailing(pool)
    dispatcher = start(sender := ScriptedSender(delay=0.01), max_concurrency=5)
    await sender.until(50)
    assert await update(pool, mailing, start_time=await ahead(pool)) is MailingState.SCHEDULED
    dispatcher.hint()
    await eventually(lambda: leased(pool), lambda count: count == 0)
    sent = len(sender.requests)
    assert (await statuses(pool, mailing))[Status.DELIVERED] == sent < 800
    assert await dispatcher_storage(DispatcherDatabase(pool), uuid4()).queue.scan() == []
    assert await audit(pool) == []
    soon = await database_now(pool) + timedelta(seconds=0.5)
    assert await update(pool, mailing, start_time=soon) is MailingState.SCHEDULED
    dispatcher.hint()
    await completed(pool, mailing)
    assert await pool.fetchval("SELECT count(*) FROM ledger WHERE settled_at >= $1", soon) == 800 - sent
    assert sender.counts == Counter({mailing << 32 | client: 1 for client in clients})


async def test_a_start_moved_to_another_past_moment_stops_nothing(pool: asyncpg.Pool) -> None:
    mailing = await add_mailing(pool, state=MailingState.RUNNING)
    before = await database_now(pool) - timedelta(hours=1)
    assert await update(pool, mailing, start_time=before) is MailingState.RUNNING
    assert await update(pool, mailing, start_time=None) is MailingState.RUNNING


async def test_an_open_mailing_that_starts_again_has_missed_nobody(pool: asyncpg.Pool) -> None:
    """Fails when `start_due` begins no new pass: nobody keeps client changes for a scheduled mailing."""
    await add_clients(pool, 16)
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())

    async def expand() -> int:
        await storage.plan.start_due()
        (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
        steps = [await storage.plan.expand(expansion, bucket, 500, 1000) for bucket in expansion.positions]
        return sum(step.inserted for step in steps)

    assert await expand() == 16
    await storage.plan.expanded(0.0)
    await update(pool, mailing, start_time=await ahead(pool))
    await add_clients(pool, 5, 1000)
    await storage.plan.forget_changes()
    assert await storage.plan.rechecks_due() == []
    await update(pool, mailing, start_time=None)
    assert await expand() == 5
    assert await audit(pool) == []


async def test_a_snapshot_that_starts_again_keeps_its_audience(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 16)
    mailing = await add_mailing(pool)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    await update(pool, mailing, start_time=await ahead(pool))
    await add_clients(pool, 5, 1000)
    await update(pool, mailing, start_time=None)
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 16}


@pytest.mark.parametrize("stopped", [MailingState.PAUSED, MailingState.SCHEDULED])
async def test_a_mailing_that_was_learned_as_stopped_is_not_claimed(pool: asyncpg.Pool, stopped: MailingState) -> None:
    """It is scanned, stopped, and then its definition is read, which says so. Fails when the claim looks for
    changes since that definition only.
    """
    await add_clients(pool, 16)
    mailing_id = await add_mailing(pool)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
    await storage.plan.expand(expansion, 0, 500, 1000)
    assert [work.mailing_id for work in await storage.queue.scan()] == [mailing_id]
    await pool.execute("UPDATE mailings SET state = $1", stopped)
    mailing = (await storage.queue.definitions([mailing_id]))[mailing_id]
    assert await storage.queue.claim(mailing, 0, 1, 60.0, None) == []


async def test_what_failed_is_sent_again_and_the_mailing_completes_again(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 200)
    mailing = await add_mailing(pool)
    start(
        sender := ScriptedSender(
            lambda client, number: answer(400) if number == 1 and (client + client // 16) % 2 else answer()
        )
    )
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 100, Status.FAILED: 100}
    assert await retry(pool, mailing, Status.FAILED) == 100
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 200})
    await completed(pool, mailing)
    assert Counter(sender.counts.values()) == {1: 100, 2: 100}
    assert await pool.fetchval("SELECT count(*) FROM ledger WHERE attempts = 2 AND forgiven = 1") == 100
    assert await audit(pool) == []


async def test_an_open_mailing_without_an_end_goes_on_after_a_retry(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 15)
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN)
    start(ScriptedSender(lambda client, number: answer(400) if number == 1 else answer()))
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.FAILED: 15})
    assert await retry(pool, mailing, Status.FAILED) == 15
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 15})
    assert await state_of(pool, mailing) is MailingState.RUNNING
