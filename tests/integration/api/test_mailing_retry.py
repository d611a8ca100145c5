"""Putting settled messages back: which ones, how often, and that the ledger stays exact."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.outcomes import Settled, Settlement
from dispatcher.model.states import AudienceMode, MailingState, Reason, Semantics, Status
from dispatcher.retry_policy import OPEN_BATCHES, unsent
from mailing.v1 import mailing_pb2
from mailing.v1.mailing_service_pb2 import CancelMailingRequest, RetryMailingRequest
from server.storage import mailing_retry
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import State, at, get, move_to, update
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses
from tests.support.locks import blocked, bucket_lock, holding

ENDS = {
    Status.DELIVERED: (Status.DELIVERED, Reason.NONE, 1),
    Status.FAILED: (Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, 5),
    Status.EXPIRED: (Status.EXPIRED, Reason.MAILING_ENDED, 0),
    Status.CANCELLED: (Status.CANCELLED, Reason.CLIENT_DELETED, 0),
    Status.SKIPPED: (Status.SKIPPED, Reason.OPTED_OUT, 0),
    Status.UNKNOWN: (Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, 1),
}


async def retry(service: Service, mailing_id: int, *chosen: int) -> int:
    request = RetryMailingRequest(mailing_id=mailing_id, statuses=chosen)  # type: ignore[arg-type]
    return (await service.mailings.RetryMailing(request)).requeued


async def expanded(pool: asyncpg.Pool, **columns: Any) -> int:
    """Return a running mailing with a message to every client, none of them claimed."""
    mailing_id = await add_mailing(pool, **columns)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
    for bucket in expansion.positions:
        await storage.plan.expand(expansion, bucket, 500, 100_000)
    return mailing_id


async def settle_all(pool: asyncpg.Pool, mailing_id: int, *ends: Status) -> None:
    """Settle every open batch as a dispatcher would, giving the ends out in turn."""
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    for work in await storage.queue.scan():
        mailing = (await storage.queue.definitions([work.mailing_id]))[mailing_id]
        for batch in await storage.queue.claim(mailing, work.bucket, 1000, 60.0, None):
            settled: list[Settled] = []
            for n, recipient in enumerate(batch.recipients):
                status, reason, attempted = ENDS[ends[n % len(ends)]]
                outcome = unsent(status, reason)._replace(attempted=attempted)
                settled.append((recipient.client_id, recipient.attempts, outcome))
            assert await storage.queue.settle(Settlement.of(batch, "default", settled, True))


@pytest.mark.parametrize("chosen", [{Status.FAILED}, {Status.UNKNOWN, Status.EXPIRED}, set(Status) & {3, 4, 7}])
async def test_messages_of_the_chosen_statuses_are_put_back_and_no_others(
    service: Service, pool: asyncpg.Pool, chosen: Collection[Status]
) -> None:
    await add_clients(pool, 16 * 12)
    mailing_id = await expanded(pool)
    await settle_all(pool, mailing_id, *ENDS)
    before = await statuses(pool, mailing_id)
    assert await retry(service, mailing_id, *chosen) == 32 * len(chosen)
    after = await statuses(pool, mailing_id)
    assert after.pop(Status.PENDING) == 32 * len(chosen)
    assert after == {status: n for status, n in before.items() if status not in chosen}
    rows = await pool.fetch(
        "SELECT attempts, forgiven, reason, settled_at, due_at <= now() AS due FROM ledger WHERE status = 1"
    )
    for row in rows:
        assert row["forgiven"] == (row["attempts"] or None)
        assert row["reason"] == (Reason.RETRYING if row["attempts"] else Reason.NONE)
        assert row["due"]
    assert await audit(pool) == []
    progress = (await get(service, mailing_id)).progress
    assert (progress.pending, progress.total) == (32 * len(chosen), 192)
    assert await retry(service, mailing_id, *chosen) == 0, "those are pending now"


async def test_counters_by_reason_figures_and_journal_follow(service: Service, pool: asyncpg.Pool) -> None:
    await add_clients(pool, 32)
    mailing_id = await expanded(pool)
    await settle_all(pool, mailing_id, Status.FAILED, Status.DELIVERED)
    assert await retry(service, mailing_id, Status.FAILED) == 16
    counters = await pool.fetch("SELECT status, reason, sum(n) AS n FROM mailing_counts GROUP BY 1, 2 ORDER BY 1, 2")
    assert [tuple(row) for row in counters] == [(1, 0, 16), (2, 0, 16), (3, Reason.ATTEMPTS_EXHAUSTED, 0)]
    figures = await pool.fetch("SELECT key, sum(n) AS n FROM mailing_figures WHERE kind = 1 GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in figures] == [(1, 16), (5, 0)]
    entries = await pool.fetch("SELECT bucket, seq, client_ids, statuses FROM journal WHERE seq = 2 ORDER BY bucket")
    assert [row["statuses"] for row in entries] == [[Status.PENDING]] * 16
    assert sorted(client for row in entries for client in row["client_ids"]) == list(range(16, 32))
    assert await pool.fetchval("SELECT bool_and(journal_seq = 2) FROM buckets")


@pytest.mark.parametrize(("semantics", "most"), [(Semantics.AT_LEAST_ONCE, 500), (Semantics.AT_MOST_ONCE, 50)])
async def test_batches_are_as_large_as_those_of_an_expansion(
    service: Service, pool: asyncpg.Pool, semantics: Semantics, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also goes over the border of a step, with a step that is no multiple of a batch."""
    monkeypatch.setattr(mailing_retry, "STEP", 620)
    await add_clients(pool, 16 * 1500)
    mailing_id = await expanded(pool, semantics=semantics)
    await settle_all(pool, mailing_id, Status.FAILED)
    assert await retry(service, mailing_id, Status.FAILED) == 24_000
    sizes = [row["n"] for row in await pool.fetch("SELECT cardinality(client_ids) AS n FROM batches")]
    assert sum(sizes) == 24_000
    assert max(sizes) == most
    assert len(sizes) <= 16 * (3 * (620 // most + 1))
    assert await audit(pool) == []


async def test_a_completed_mailing_runs_again_only_when_something_was_put_back(
    service: Service, pool: asyncpg.Pool
) -> None:
    await add_clients(pool, 32)
    mailing_id = await expanded(pool)
    await settle_all(pool, mailing_id, Status.FAILED)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    assert await storage.plan.complete() == [mailing_id]
    completed = await get(service, mailing_id)
    assert await retry(service, mailing_id, Status.UNKNOWN) == 0
    assert await get(service, mailing_id) == completed
    assert await retry(service, mailing_id, Status.FAILED) == 32
    running = await get(service, mailing_id)
    assert running.state == State.STATE_RUNNING
    assert running.etag != completed.etag
    assert await storage.plan.complete() == []
    await settle_all(pool, mailing_id, Status.DELIVERED)
    assert await storage.plan.complete() == [mailing_id]
    assert await statuses(pool, mailing_id) == {Status.DELIVERED: 32}
    assert await audit(pool) == []


async def test_a_mailing_whose_end_has_passed_is_retried_once_the_end_is_moved(
    service: Service, pool: asyncpg.Pool
) -> None:
    await add_clients(pool, 16)
    mailing_id = await expanded(pool, audience=AudienceMode.OPEN, ends_in=3600)
    await settle_all(pool, mailing_id, Status.EXPIRED)
    await pool.execute("UPDATE mailings SET starts_at = now() - interval '1 h', ends_at = now() - interval '1 s'")
    assert await dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan.complete() == [mailing_id]
    with refused("FAILED_PRECONDITION", "MAILING_ENDED"):
        await retry(service, mailing_id, Status.EXPIRED)
    assert (await update(service, mailing_pb2.Mailing(id=mailing_id, end_time=at(3600)))).state == State.STATE_COMPLETED
    (late,) = await add_clients(pool, 1, first=4096)
    assert await retry(service, mailing_id, Status.EXPIRED) == 16
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
    for bucket in expansion.positions:
        await storage.plan.expand(expansion, bucket, 500, 1000)
    assert await pool.fetchval("SELECT count(*) FROM ledger WHERE client_id = $1", late) == 1, "it is open again"
    assert await storage.plan.complete() == []
    assert await audit(pool) == []


@pytest.mark.parametrize("state", [MailingState.SCHEDULED, MailingState.CANCELLED])
async def test_a_mailing_that_is_not_to_send_cannot_be_retried(
    service: Service, pool: asyncpg.Pool, state: MailingState
) -> None:
    mailing_id = await add_mailing(pool, starts_in=3600, state=state)
    with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
        await retry(service, mailing_id, Status.FAILED)
    assert info.metadata == {"found": state.name, "needed": "RUNNING,PAUSED,COMPLETED"}


async def test_a_bad_retry_is_rejected_by_field(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await add_mailing(pool, state=MailingState.RUNNING)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id", "statuses"):
        await retry(service, 0)
    chosen = (Status.FAILED, Status.DELIVERED, 0, Status.UNKNOWN, Status.PENDING, 99, Status.CANCELLED, Status.SKIPPED)
    bad = [f"statuses[{index}]" for index in (1, 2, 4, 5, 6, 7)]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *bad):
        await retry(service, mailing_id, *chosen)
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await retry(service, 99, Status.FAILED)


async def test_one_that_fails_again_meanwhile_is_not_put_back_twice(
    service: Service, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of one message, the second of a bucket fails anew behind the first.

    Fails when `find_to_retry` does not look at settled_at.
    """
    monkeypatch.setattr(mailing_retry, "STEP", 1)
    clients = await add_clients(pool, 3 * 16)
    mailing_id = await expanded(pool)
    await settle_all(pool, mailing_id, Status.FAILED)
    in_bucket_15 = [client for client in clients if client % 16 == 15]
    async with holding(pool, bucket_lock(15)) as other:
        call = asyncio.create_task(retry(service, mailing_id, Status.FAILED))
        await blocked(pool)
        await other.execute("UPDATE messages SET settled_at = clock_timestamp() WHERE client_id = $1", in_bucket_15[1])
    assert await call == 47
    assert (await statuses(pool, mailing_id)) == {Status.PENDING: 47, Status.FAILED: 1}


async def test_a_cancellation_in_the_middle_stops_the_rest(service: Service, pool: asyncpg.Pool) -> None:
    """What was put back before stays so, and the ledger is sound: a repeated call would find the rest."""
    await add_clients(pool, 160)
    mailing_id = await expanded(pool)
    await settle_all(pool, mailing_id, Status.FAILED)
    async with holding(pool, bucket_lock(8)):
        call = asyncio.create_task(retry(service, mailing_id, Status.FAILED))
        await blocked(pool)
        cancelling = service.mailings.CancelMailing(CancelMailingRequest(mailing_id=mailing_id))
        await blocked(pool, 2)
    await cancelling
    with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
        await call
    assert info.metadata["found"] == "CANCELLED"
    assert await audit(pool) == []
    assert 0 < (await statuses(pool, mailing_id))[Status.PENDING] < 160


async def test_a_completion_under_way_does_not_bury_what_is_put_back(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when the look and the completion are one statement: its snapshot is older than the retry it waited for."""
    await add_clients(pool, 16)
    mailing_id = await expanded(pool)
    await settle_all(pool, mailing_id, Status.FAILED)
    async with holding(pool, bucket_lock(15)):
        call = asyncio.create_task(retry(service, mailing_id, Status.FAILED))
        await eventually(lambda: pool.fetchval("SELECT count(*) = 15 FROM ledger WHERE status = 1"))
        await pool.execute("DELETE FROM batches")  # as if those were settled: complete() sees none
        await blocked(pool)
        completing = asyncio.create_task(dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan.complete())
        await blocked(pool, 2)
    assert await call == 16
    assert await completing == []
    assert (await get(service, mailing_id)).state == State.STATE_RUNNING


async def test_two_retries_at_once_put_each_message_back_once(service: Service, pool: asyncpg.Pool) -> None:
    await add_clients(pool, 320)
    mailing_id = await expanded(pool)
    await settle_all(pool, mailing_id, Status.FAILED)
    await move_to(pool, mailing_id, MailingState.COMPLETED)
    counts = await asyncio.gather(*(retry(service, mailing_id, Status.FAILED) for _ in range(4)))
    assert sum(counts) == 320
    assert await audit(pool) == []
