"""Deleting a mailing and its ledger: in steps, repeatable, and never half seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.outcomes import Settlement
from dispatcher.model.states import MailingState, Reason, Status
from dispatcher.retry_policy import put_off, unsent
from dispatcher.tasks import in_background
from mailing.v1.mailing_service_pb2 import DeleteMailingRequest, RetryMailingRequest
from mailing.v1.message_service_pb2 import GetMessageRequest, ListAttemptsRequest, ListMessagesRequest
from server.runtime.deletion_sweeper import sweep
from server.storage import mailing_deletion, removals
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.removals import Removals
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import get
from tests.integration.api.rows import add_batch
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, database_now
from tests.support.locks import blocked, bucket_lock, holding, unblocked

TABLES = (
    "messages",
    "removals",
    "batches",
    "attempts",
    "mailing_counts",
    "mailing_figures",
    "expansions",
    "rate_slots",
)


async def delete(service: Service, mailing_id: int, **fields: Any) -> int:
    request = DeleteMailingRequest(mailing_id=mailing_id, **fields)
    return (await service.mailings.DeleteMailing(request)).deleted_messages


async def with_ledger(pool: asyncpg.Pool, clients: int, state: MailingState = MailingState.CANCELLED) -> int:
    """Return a mailing with pending messages, an attempt and a figure for each, and a rate."""
    mailing_id = await add_mailing(pool)
    await dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan.start_due()
    for bucket in range(16):
        await add_batch(pool, mailing_id, range(16 + bucket, 16 + bucket + clients, 16))
    await pool.execute(
        "INSERT INTO attempts (bucket, mailing_id, client_id, number, at, endpoint, error_class, duration_ms)"
        " SELECT bucket, mailing_id, client_id, 1, now(), '', 1, 5 FROM ledger WHERE mailing_id = $1",
        mailing_id,
    )
    await pool.execute(
        "INSERT INTO mailing_figures SELECT bucket, $1, 1, 0, 1 FROM buckets",
        mailing_id,
    )
    await pool.execute("INSERT INTO rate_slots (key) VALUES ('mailing/' || $1::bigint)", mailing_id)
    await pool.execute("UPDATE mailings SET state = $2 WHERE id = $1", mailing_id, state)
    return mailing_id


async def left(pool: asyncpg.Pool) -> dict[str, int]:
    counts = {table: await pool.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}
    return {table: count for table, count in counts.items() if count}


async def break_off(service: Service, pool: asyncpg.Pool, mailing_id: int) -> None:
    """Begin to delete a mailing, and give up in the middle."""
    async with holding(pool, "SELECT FROM messages WHERE bucket = 9 FOR UPDATE"):
        call = asyncio.create_task(delete(service, mailing_id))
        await blocked(pool)
        call.cancel()
        await asyncio.wait([call])
        await unblocked(pool)  # the service has heard of it


async def test_everything_goes_in_steps(service: Service, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "STEP", 7)
    monkeypatch.setattr(mailing_deletion, "AT_ONCE", 60.0)
    mailing_id = await with_ledger(pool, 320)
    assert await delete(service, mailing_id) == 320
    assert await left(pool) == {}
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await get(service, mailing_id)


async def test_a_repeated_deletion_succeeds_where_that_is_allowed(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await with_ledger(pool, 32)
    assert await delete(service, mailing_id, allow_missing=True) == 32
    assert await delete(service, mailing_id, allow_missing=True) == 0
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await delete(service, mailing_id)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id"):
        await delete(service, 0, allow_missing=True)


async def test_allowing_it_to_be_missing_allows_nothing_else(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await with_ledger(pool, 16, MailingState.PAUSED)
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        await delete(service, mailing_id, allow_missing=True)
    with refused("ABORTED", "STALE_ETAG"):
        await delete(service, mailing_id, allow_missing=True, etag="0-0")


async def test_an_interrupted_deletion_is_hidden_and_completed_by_another(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when reading a message does not look for its mailing, and when the expansion goes first."""
    mailing_id = await with_ledger(pool, 320)
    await break_off(service, pool, mailing_id)
    remains = await left(pool)
    assert 0 < remains["messages"] < 320
    message_id = mailing_id << 32 | 31
    reads: list[Awaitable[Any]] = [
        service.messages.ListMessages(ListMessagesRequest(mailing_id=mailing_id)),
        service.messages.GetMessage(GetMessageRequest(message_id=message_id)),
        service.messages.ListAttempts(ListAttemptsRequest(message_id=message_id)),
        service.mailings.RetryMailing(RetryMailingRequest(mailing_id=mailing_id, statuses=[Status.FAILED])),  # type: ignore[list-item]
    ]
    for reading, reason in zip(reads, ["MAILING", "MESSAGE", "MESSAGE", "MAILING"], strict=True):
        with refused("NOT_FOUND", f"{reason}_NOT_FOUND"):
            await reading
    assert not (await service.messages.ListMessages(ListMessagesRequest(client_id=31))).messages
    assert await dispatcher_storage(DispatcherDatabase(pool), uuid4()).queue.scan() == []
    assert await delete(service, mailing_id) == remains["messages"]
    assert await left(pool) == {}


async def test_what_a_deletion_left_is_swept_away(
    service: Service, pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    kept = await with_ledger(pool, 32)
    before = await left(pool)
    gone = await with_ledger(pool, 320)
    await break_off(service, pool, gone)
    remains = (await left(pool))["messages"] - 32

    async def all_left() -> dict[str, int]:
        return await left(pool)

    with caplog.at_level(logging.INFO):
        async with in_background(sweep(Removals(Database(pool))), "sweep"):
            await eventually(all_left, lambda now: now == before)
    assert f"the last {remains} messages of mailing {gone} that were to go are removed" in caplog.text
    assert (await get(service, kept)).progress.total == 32


async def test_a_settle_under_way_leaves_nothing_behind(service: Service, pool: asyncpg.Pool) -> None:
    """It puts messages off into new batches while the deletion waits for it.

    Fails when the batches are deleted until nothing was deleted, instead of until there are none.
    """
    await add_clients(pool, 32)
    mailing_id = await with_ledger(pool, 1, MailingState.RUNNING)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    mailing = (await storage.queue.definitions([mailing_id]))[mailing_id]
    (batch,) = await storage.queue.claim(mailing, 0, 1, 60.0, None)
    await pool.execute("DELETE FROM batches WHERE bucket > 0")
    await pool.execute("UPDATE mailings SET state = $1", MailingState.CANCELLED)
    later = put_off(await database_now(pool))
    async with holding(pool, bucket_lock(0)):
        settling = asyncio.create_task(storage.queue.settle(Settlement.of(batch, "default", [(16, 0, later)], True)))
        await blocked(pool)
        call = asyncio.create_task(delete(service, mailing_id))
        await blocked(pool, 2)
    assert await settling
    await call
    assert await left(pool) == {}
    assert not await storage.queue.settle(
        Settlement.of(batch, "default", [(16, 0, unsent(Status.CANCELLED, Reason.NONE))], True)
    )
