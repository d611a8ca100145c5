"""Deleting a client ends their unsent messages, and the ledger stays exact."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.outcomes import Settlement
from dispatcher.model.states import MailingState, Reason, Status
from dispatcher.retry_policy import unsent
from mailing.v1 import client_pb2
from mailing.v1.client_service_pb2 import DeleteClientRequest, GetClientRequest
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.api.calls import add_client, refused
from tests.integration.api.conftest import Service
from tests.integration.api.rows import add_batch, add_mailing, count_of
from tests.support.locks import blocked

PHONE = 79260000000


async def delete(service: Service, one: client_pb2.Client) -> int:
    answer = await service.clients.DeleteClient(DeleteClientRequest(client_id=one.id))
    return answer.cancelled_messages


async def neighbours(service: Service, count: int) -> list[client_pb2.Client]:
    """Add clients of one bucket."""
    found: dict[int, list[client_pb2.Client]] = {}
    for phone in range(PHONE, PHONE + 1000):
        one = await add_client(service, phone)
        found.setdefault(one.id % 16, []).append(one)
        if len(found[one.id % 16]) == count:
            return found[one.id % 16]
    raise AssertionError("no bucket got as many")


async def status_of(pool: asyncpg.Pool, mailing_id: int, client_id: int) -> tuple[int, int, bool]:
    row = await pool.fetchrow(
        "SELECT status, reason, settled_at IS NOT NULL AS settled FROM ledger WHERE mailing_id = $1 AND client_id = $2",
        mailing_id,
        client_id,
    )
    return row["status"], row["reason"], row["settled"]


async def journal(pool: asyncpg.Pool) -> list[tuple[int, int, Sequence[int], Sequence[int]]]:
    rows = await pool.fetch("SELECT seq, mailing_id, client_ids, statuses FROM journal ORDER BY bucket, seq")
    return [tuple(row) for row in rows]


async def test_a_deleted_client_is_gone_and_the_phone_is_free(service: Service) -> None:
    made = await add_client(service)
    assert await delete(service, made) == 0
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
        await service.clients.GetClient(GetClientRequest(client_id=made.id))
    assert (await add_client(service)).id != made.id


@pytest.mark.parametrize("state", [MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED])
async def test_unsent_messages_of_live_mailings_end_cancelled(
    service: Service, pool: asyncpg.Pool, state: MailingState
) -> None:
    gone, other = await neighbours(service, 2)
    bucket = gone.id % 16
    mailings = [await add_mailing(pool, state) for _ in range(3)]
    for mailing_id in mailings:
        await add_batch(pool, mailing_id, [gone.id, other.id])
    assert await delete(service, gone) == 3
    for mailing_id in mailings:
        assert await status_of(pool, mailing_id, gone.id) == (Status.CANCELLED, Reason.CLIENT_DELETED, True)
        assert await status_of(pool, mailing_id, other.id) == (Status.PENDING, Reason.NONE, False)
        assert await count_of(pool, mailing_id) == {Status.PENDING: 1, Status.CANCELLED: 1}
    assert await journal(pool) == [(n + 1, id_, [gone.id], [Status.CANCELLED]) for n, id_ in enumerate(mailings)]
    assert await pool.fetchval("SELECT journal_seq FROM buckets WHERE bucket = $1", bucket) == 3
    assert await pool.fetchval("SELECT count(*) FROM batches") == 3


async def test_a_batch_goes_with_its_last_pending_message(service: Service, pool: asyncpg.Pool) -> None:
    first, second = await neighbours(service, 2)
    mailing_id = await add_mailing(pool, MailingState.RUNNING)
    await add_batch(pool, mailing_id, [first.id, second.id])
    assert await delete(service, first) == 1
    assert await pool.fetchval("SELECT client_ids FROM batches") == [first.id, second.id]
    assert await delete(service, second) == 1
    assert await pool.fetchval("SELECT count(*) FROM batches") == 0
    assert await count_of(pool, mailing_id) == {Status.PENDING: 0, Status.CANCELLED: 2}
    assert await pool.fetchval("SELECT sum(n) FROM mailing_figures WHERE kind = 1 AND key = 0") == 2


async def test_a_leased_batch_is_left_to_its_holder(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service)
    mailing_id = await add_mailing(pool, MailingState.RUNNING)
    await add_batch(pool, mailing_id, [made.id], lease=60)
    assert await delete(service, made) == 0
    assert await status_of(pool, mailing_id, made.id) == (Status.PENDING, Reason.NONE, False)
    assert await count_of(pool, mailing_id) == {Status.PENDING: 1}
    assert await journal(pool) == []


async def test_a_delivery_recorded_after_its_lease_survives_a_deletion(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when a batch is taken whose lease ran out: the client's message then stands as CANCELLED."""
    made = await add_client(service)
    mailing_id = await add_mailing(pool, MailingState.RUNNING)
    await add_batch(pool, mailing_id, [made.id])
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    mailing = (await storage.queue.definitions([mailing_id]))[mailing_id]
    (batch,) = await storage.queue.claim(mailing, made.id % 16, 1, 0.0, None)
    assert await delete(service, made) == 0
    sent = unsent(Status.DELIVERED, Reason.NONE)
    assert await storage.queue.settle(Settlement.of(batch, "default", [(made.id, 0, sent)], True))
    assert await status_of(pool, mailing_id, made.id) == (Status.DELIVERED, Reason.NONE, True)
    assert await count_of(pool, mailing_id) == {Status.PENDING: 0, Status.DELIVERED: 1}


async def test_history_stays(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service)
    sent = await add_mailing(pool, MailingState.RUNNING)
    await add_batch(pool, sent, [made.id])
    await pool.execute("UPDATE messages SET status = 2, settled_at = now()")
    over = await add_mailing(pool, MailingState.CANCELLED)
    await add_batch(pool, over, [made.id])
    assert await delete(service, made) == 0
    assert await status_of(pool, sent, made.id) == (Status.DELIVERED, Reason.NONE, True)
    assert await status_of(pool, over, made.id) == (Status.PENDING, Reason.NONE, False)


async def test_a_claim_under_way_wins_over_a_deletion(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service)
    mailing_id = await add_mailing(pool, MailingState.RUNNING)
    await add_batch(pool, mailing_id, [made.id])
    async with pool.acquire() as claimer:
        transaction = claimer.transaction()
        await transaction.start()
        await claimer.execute(
            "UPDATE batches SET lease_until = now() + interval '60 s', fence = fence + 1, holder = gen_random_uuid()"
        )
        deletion = asyncio.create_task(delete(service, made))
        await blocked(pool)
        await transaction.commit()
    assert await deletion == 0
    assert await status_of(pool, mailing_id, made.id) == (Status.PENDING, Reason.NONE, False)


async def test_simultaneous_deletions_keep_the_ledger_exact(service: Service, pool: asyncpg.Pool) -> None:
    clients = await neighbours(service, 8)
    mailings = [await add_mailing(pool, MailingState.RUNNING) for _ in range(4)]
    for mailing_id in mailings:
        await add_batch(pool, mailing_id, [one.id for one in clients])
    counts = await asyncio.gather(*(delete(service, one) for one in clients))
    assert counts == [4] * 8
    for mailing_id in mailings:
        assert await count_of(pool, mailing_id) == {Status.PENDING: 0, Status.CANCELLED: 8}
    assert [seq for seq, *_ in await journal(pool)] == list(range(1, 33))
    assert await pool.fetchval("SELECT count(*) FROM batches") == 0
