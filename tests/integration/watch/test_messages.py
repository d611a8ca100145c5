"""WatchMessages: nothing is lost, whatever happens to streams, readers and replicas."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta

import asyncpg
import pytest

from dispatcher.model.batches import ClaimedBatch
from dispatcher.model.states import Status
from mailing.v1.message_pb2 import Message
from server.api.services.delivery_service import DELIVERY
from server.storage.change_feed import ChangeFeedStore
from server.storage.database import Database
from server.watch.retention import Retention
from tests.integration.api.calls import refused
from tests.integration.watch.calls import Messages
from tests.integration.watch.conftest import Replica, Start
from tests.integration.watch.ledger import BUCKETS, Work, append
from tests.support.ledger import add_clients, audit


async def test_every_change_of_concurrent_settles_arrives_exactly_once(
    pool: asyncpg.Pool, replica: Replica, work: Work
) -> None:
    await add_clients(pool, 1600)
    mailing = await work.mailing(batch_size=4)
    live = await Messages(replica, mailing_id=mailing.id).begun()
    everything = await Messages(replica).begun()
    batches = await work.claim_all(mailing)
    random.Random(7).shuffle(batches)
    workers = [asyncio.create_task(settle_all(work, batches)) for _ in range(6)]
    assert await live.until(1600) == await everything.until(1600)
    await asyncio.gather(*workers)
    assert live.seen() == await work.settled(mailing.id)
    late = Messages(replica, mailing_id=mailing.id, from_start=True)
    assert await late.until(1600) == live.seen()
    assert max(live.sizes + late.sizes) <= 500
    assert await audit(pool) == []


async def settle_all(work: Work, batches: list[ClaimedBatch]) -> None:
    while batches:
        await work.settle(batches.pop(), Status.DELIVERED, Status.FAILED)


async def test_a_change_that_commits_late_is_not_missed(pool: asyncpg.Pool, replica: Replica, work: Work) -> None:
    await add_clients(pool, 32)
    mailing = await work.mailing()
    (late,), (early,) = await work.claim(mailing, 1), await work.claim(mailing, 2)
    live = await Messages(replica).begun()
    async with pool.acquire() as connection, connection.transaction():
        # The number is taken, but its bucket is not committed yet: others go on.
        await connection.execute("UPDATE buckets SET journal_seq = journal_seq + 1 WHERE bucket = 1")
        await work.settle(early)
        await live.until(2)
        blocked = asyncio.create_task(work.settle(late))
        assert {change.client_id % BUCKETS for change in live.changes} == {2}
    await blocked
    await live.until(4)
    assert live.seen() == await work.settled(mailing.id)


async def test_another_replica_resumes_with_the_same_token(pool: asyncpg.Pool, start: Start, work: Work) -> None:
    await add_clients(pool, 320)
    mailing = await work.mailing()
    first, second = await start(), await start()
    batches = await work.claim_all(mailing)
    before = await Messages(first, mailing_id=mailing.id).begun()
    for batch in batches[:10]:
        await work.settle(batch)
    half = sum(len(batch.recipients) for batch in batches[:10])
    await before.until(half)
    before.cancel()
    for batch in batches[10:]:
        await work.settle(batch)
    after = Messages(second, mailing_id=mailing.id, resume_token=before.token)
    await after.until(320 - half)
    assert before.seen() + after.seen() == await work.settled(mailing.id)


async def test_a_stream_from_now_has_nothing_from_before(pool: asyncpg.Pool, replica: Replica, work: Work) -> None:
    await add_clients(pool, 32)
    mailing = await work.mailing()
    first, *others = await work.claim_all(mailing)
    await work.settle(first)
    live = await Messages(replica).begun()
    for batch in others:
        await work.settle(batch)
    seen = await live.until(30)
    assert seen == await work.settled(mailing.id) - Counter(
        (first.mailing_id << 32 | r.client_id, 2) for r in first.recipients
    )


async def test_a_stream_has_only_the_mailing_and_statuses_asked_for(
    pool: asyncpg.Pool, replica: Replica, work: Work
) -> None:
    await add_clients(pool, 64)
    one, other = await work.mailing(), await work.mailing()
    failed = Message.STATUS_FAILED
    live = await Messages(replica, mailing_id=one.id, statuses=[failed]).begun()
    for mailing in (other, one):
        for batch in await work.claim_all(mailing):
            await work.settle(batch, Status.DELIVERED, Status.FAILED)
    expected = Counter({key: n for key, n in (await work.settled(one.id)).items() if key[1] == failed})
    assert await live.until(expected.total()) == expected
    past = Messages(replica, mailing_id=one.id, statuses=[failed], from_start=True)
    assert await past.until(expected.total()) == expected


async def test_changes_of_a_message_come_in_order(pool: asyncpg.Pool, replica: Replica, work: Work) -> None:
    await add_clients(pool, 16)
    mailing = await work.mailing()
    for status in (3, 1, 2):
        await append(pool, mailing.id, 16, status)
    past = Messages(replica, from_start=True)
    await past.until(3)
    assert [int(change.status) for change in past.changes] == [3, 1, 2]


async def test_a_large_entry_comes_in_pieces_and_is_repeated_when_cut(
    pool: asyncpg.Pool, replica: Replica, work: Work
) -> None:
    mailing = await work.mailing()
    await append(pool, mailing.id, 16, 5, clients=1200)
    stream = Messages(replica, from_start=True)
    first = await stream.read()
    again = Messages(replica, resume_token=first.resume_token)
    await again.until(1200)
    assert again.sizes == [500, 500, 200]
    await stream.until(1200)
    assert stream.seen() == again.seen()


async def test_an_idle_stream_gets_checkpoints_that_move_on(pool: asyncpg.Pool, replica: Replica, work: Work) -> None:
    mailing, other = await work.mailing(), await work.mailing()
    live = await Messages(replica, mailing_id=mailing.id).begun()
    token = live.token
    await append(pool, other.id, 16, 2)
    while live.token == token:
        assert (await live.read()).checkpoint
    resumed = await Messages(replica, mailing_id=mailing.id, resume_token=live.token).begun()
    assert not resumed.changes


async def test_a_reader_that_fell_behind_the_ring_reads_the_table(pool: asyncpg.Pool, start: Start, work: Work) -> None:
    await add_clients(pool, 800)
    mailing = await work.mailing(batch_size=5)
    replica = await start(ring_changes=20)
    live = await Messages(replica, mailing_id=mailing.id).begun()
    batches = await work.claim_all(mailing)
    await asyncio.gather(*(settle_all(work, batches) for _ in range(8)))
    await live.until(800)
    assert live.seen() == await work.settled(mailing.id)


@pytest.mark.parametrize("token", ["x", "AAAA", "Ж", "A" * 200, "=" * 7])
async def test_garbage_is_no_token(replica: Replica, token: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"):
        await Messages(replica, resume_token=token).read()


async def test_a_token_of_another_query_or_with_a_flipped_letter_is_rejected(replica: Replica, work: Work) -> None:
    mailing = await work.mailing()
    token = (await Messages(replica).begun()).token
    other = "B" if token[20] == "A" else "A"
    for request in (
        {"resume_token": token, "mailing_id": mailing.id},
        {"resume_token": token, "statuses": [2]},
        {"resume_token": f"{token[:20]}{other}{token[21:]}"},
    ):
        with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"):
            await Messages(replica, **request).read()


async def test_a_token_of_another_database_is_expired(pool: asyncpg.Pool, start: Start, replica: Replica) -> None:
    token = (await Messages(replica).begun()).token
    await pool.execute("UPDATE journal_epochs SET epoch = gen_random_uuid()")
    with refused("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"):
        await Messages(await start(), resume_token=token).read()


async def test_a_token_ahead_of_the_database_is_expired(pool: asyncpg.Pool, replica: Replica) -> None:
    await append(pool, 1, 16, 2)
    token = (await Messages(replica).begun()).token
    await pool.execute("UPDATE buckets SET journal_seq = 0")
    with refused("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"):
        await Messages(replica, resume_token=token).read()


async def test_old_entries_are_removed_and_their_tokens_expire(pool: asyncpg.Pool, replica: Replica) -> None:
    token = (await Messages(replica).begun()).token
    for n in range(250):
        await append(pool, 1, 16 + n % 2, 2)
    await pool.execute("UPDATE journal SET at = now() - interval '2 h' WHERE bucket = 0 AND seq <= 120")
    retention = Retention(ChangeFeedStore(Database(pool), BUCKETS), timedelta(hours=1).total_seconds(), "change feed")
    await retention.remove_expired()
    assert await pool.fetchrow("SELECT min(seq), count(*) FROM journal WHERE bucket = 0") == (121, 5)
    assert await pool.fetchval("SELECT count(*) FROM journal WHERE bucket = 1") == 125
    with refused("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"):
        await Messages(replica, resume_token=token).read()
    past = Messages(replica, from_start=True)
    await past.until(130)
    await Messages(replica, resume_token=past.token).begun()


async def test_removing_and_settling_do_not_wait_for_each_other(pool: asyncpg.Pool) -> None:
    await append(pool, 1, 16, 2)
    await pool.execute("UPDATE journal SET at = now() - interval '2 h'")
    store = ChangeFeedStore(Database(pool), BUCKETS)
    async with pool.acquire() as connection, connection.transaction(), asyncio.timeout(10):
        await connection.execute("UPDATE buckets SET journal_seq = journal_seq + 1 WHERE bucket = 0")
        assert await store.remove_expired(0, timedelta(hours=1), 10) == 1


async def test_an_unknown_mailing_is_not_found(replica: Replica) -> None:
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await Messages(replica, mailing_id=99).read()


async def test_bad_fields_are_named(replica: Replica) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id", "statuses[1]"):
        await Messages(replica, mailing_id=-1, statuses=[2, 99]).read()


def test_delivery_is_served() -> None:
    assert {method.name for method in DELIVERY.methods} == {"WatchMailing", "WatchMessages"}
