"""Several dispatchers, dead ones, stopped ones, and a database that goes away."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from dispatcher import planner
from dispatcher.model.batches import ClaimedBatch, OpenWork
from dispatcher.model.endpoints import Answer
from dispatcher.model.mailings import Mailing
from dispatcher.model.outcomes import Settled, Settlement
from dispatcher.model.states import AudienceMode, MailingState, Reason, Semantics, Status
from dispatcher.open_work import SCAN_AGE
from dispatcher.ports import Request, Storage, StorageUnavailable
from dispatcher.retry_policy import OPEN_BATCHES, put_off, unsent
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.work_queue import PostgresWorkQueue
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses


async def expanded(pool: asyncpg.Pool, **columns: object) -> Mailing:
    """Return a running mailing whose batches nobody has claimed."""
    mailing_id = await add_mailing(pool, **columns)  # type: ignore[arg-type]
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
    for bucket in expansion.positions:
        await storage.plan.expand(expansion, bucket, 500, 1000)
    return (await storage.queue.definitions([mailing_id]))[mailing_id]


async def claim(pool: asyncpg.Pool, mailing: Mailing, bucket: int = 0, lease: float = 60.0) -> list[ClaimedBatch]:
    return await dispatcher_storage(DispatcherDatabase(pool), uuid4()).queue.claim(mailing, bucket, 1, lease, None)


def outcomes(batch: ClaimedBatch, status: Status = Status.DELIVERED) -> list[Settled]:
    return [(r.client_id, r.attempts, unsent(status, 0)) for r in batch.recipients]  # type: ignore[arg-type]


async def test_two_dispatchers_share_one_mailing_and_nothing_is_sent_twice(pool: asyncpg.Pool, start: Start) -> None:
    clients = await add_clients(pool, 6000)
    mailing = await add_mailing(pool)
    first, second = ScriptedSender(delay=0.005), ScriptedSender(delay=0.005)
    start(first)
    start(second)
    await completed(pool, mailing)
    assert first.counts + second.counts == Counter({mailing << 32 | client: 1 for client in clients})
    assert first.counts
    assert second.counts
    assert await audit(pool) == []


async def test_a_claimed_batch_is_nobody_elses_until_its_lease_ends(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 16)
    mailing = await expanded(pool)
    (batch,) = await claim(pool, mailing)
    assert await claim(pool, mailing) == []
    await pool.execute("UPDATE batches SET lease_until = now() WHERE no = $1", batch.no)
    (again,) = await claim(pool, mailing)
    assert (again.no, again.fence) == (batch.no, batch.fence + 1)
    assert again.reclaimed
    assert not batch.reclaimed


async def test_a_batch_whose_outcomes_are_held_is_left_alone(pool: asyncpg.Pool) -> None:
    """Fails when the claim does not ask which they are: a lease may be over while its holder still works on it."""
    await add_clients(pool, 16)
    mailing = await expanded(pool)
    queue = dispatcher_storage(DispatcherDatabase(pool), uuid4()).queue
    (batch,) = await queue.claim(mailing, 0, 1, 0.0, None)
    assert await queue.claim(mailing, 0, 1, 60.0, None, held=[batch.no]) == []
    assert len(await queue.claim(mailing, 0, 1, 60.0, None, held=[batch.no + 1])) == 1


async def test_a_stale_fence_changes_nothing(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 16)
    mailing = await expanded(pool)
    (stale,) = await claim(pool, mailing, lease=0.0)
    (valid,) = await claim(pool, mailing)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    assert not await storage.queue.settle(Settlement.of(stale, "default", outcomes(stale, Status.FAILED), True))
    assert await statuses(pool, mailing.id) == {Status.PENDING: 16}
    assert await pool.fetchval("SELECT sum(journal_seq) FROM buckets") == 0
    assert await storage.queue.settle(Settlement.of(valid, "default", outcomes(valid), True))
    assert not await storage.queue.settle(Settlement.of(valid, "default", outcomes(valid), True))
    assert await statuses(pool, mailing.id) == {Status.PENDING: 15, Status.DELIVERED: 1}
    assert await audit(pool) == []


async def test_a_batch_given_back_is_open_work_and_was_not_sent(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 64)
    mailing = await expanded(pool)
    (batch,) = await claim(pool, mailing)
    first, *rest = [recipient.client_id for recipient in batch.recipients]
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    assert await storage.queue.settle(
        Settlement.of(batch, "default", [(first, 0, unsent(Status.EXPIRED, Reason.MAILING_ENDED))], True, rest)
    )
    (again,) = await claim(pool, mailing)
    assert [recipient.client_id for recipient in again.recipients] == rest
    assert (again.no, again.reclaimed) == (batch.no, False)
    assert await audit(pool) == []


async def test_a_settlement_whose_answer_was_lost_may_be_repeated(pool: asyncpg.Pool) -> None:
    """Fails (the message that is tried again stands in two batches) when giving back does not raise the fence."""
    await add_clients(pool, 64)
    mailing = await expanded(pool)
    (batch,) = await claim(pool, mailing)
    first, *rest = [recipient.client_id for recipient in batch.recipients]
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    tried = [(first, 0, put_off(batch.claimed_at + timedelta(hours=1)))]
    assert await storage.queue.settle(Settlement.of(batch, "default", tried, True, rest))
    assert not await storage.queue.settle(Settlement.of(batch, "default", tried, True, rest))
    assert await audit(pool) == []


async def test_a_batch_whose_holder_died_is_sent_by_another(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 160)
    mailing = await expanded(pool)
    for bucket in range(8):
        assert await claim(pool, mailing, bucket, lease=0.5)
    start(sender := ScriptedSender())
    await completed(pool, mailing.id)
    assert set(sender.counts.values()) == {1}
    assert await statuses(pool, mailing.id) == {Status.DELIVERED: 160}


async def test_at_most_once_is_unknown_after_a_lost_lease(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 32)
    mailing = await expanded(pool, semantics=Semantics.AT_MOST_ONCE)
    assert await claim(pool, mailing, 3, lease=0.0)
    start(sender := ScriptedSender())
    await completed(pool, mailing.id)
    assert await statuses(pool, mailing.id) == {Status.DELIVERED: 30, Status.UNKNOWN: 2}
    assert len(sender.requests) == 30
    assert await audit(pool) == []


async def test_an_outcome_waits_for_the_database_to_come_back(pool: asyncpg.Pool, start: Start) -> None:
    class Flaky(PostgresWorkQueue):
        failures = 3

        async def settle(self, settlement: Settlement) -> bool:
            if self.failures:
                self.failures -= 1
                raise StorageUnavailable("away")
            return await super().settle(settlement)

    await add_clients(pool, 100)
    mailing = await add_mailing(pool)
    start(sender := ScriptedSender(), queue=Flaky(DispatcherDatabase(pool), uuid4()))
    await completed(pool, mailing)
    assert set(sender.counts.values()) == {1}
    assert await statuses(pool, mailing) == {Status.DELIVERED: 100}


async def test_everything_goes_on_by_itself_after_the_connections_were_cut(
    pool: asyncpg.Pool, database_dsn: str, start: Start
) -> None:
    await add_clients(pool, 4000)
    mailing = await add_mailing(pool)
    start(sender := ScriptedSender(delay=0.02), max_concurrency=100)
    await sender.until(500)
    operator = await asyncpg.connect(database_dsn)
    await operator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await operator.close()
    # The dispatcher's pool heals in its own time; what it did is read through a pool of our own.
    async with asyncpg.create_pool(database_dsn) as reader:
        await completed(reader, mailing, within=40.0)
        assert await statuses(reader, mailing) == {Status.DELIVERED: 4000}
        assert await audit(reader) == []


async def test_stopping_settles_what_is_in_flight_and_frees_the_rest(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 2000)
    mailing = await add_mailing(pool)
    sender = ScriptedSender(delay=0.05)
    dispatcher = start(sender, max_concurrency=10)
    await sender.until(50)
    await dispatcher.stop()
    await eventually(lambda: _leased(pool), lambda leased: leased == 0)
    sent = len(sender.requests)
    found = await statuses(pool, mailing)
    assert found[Status.DELIVERED] == sent
    assert found.keys() == {Status.DELIVERED, Status.PENDING}
    assert await pool.fetchval("SELECT count(*) FROM batches") <= 32, "what is freed together is one batch"
    assert await audit(pool) == []


async def _leased(pool: asyncpg.Pool) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM batches WHERE lease_until > now()")
    return count


async def test_a_mailing_paused_while_it_runs_sends_nothing_more_until_resumed(
    pool: asyncpg.Pool, start: Start
) -> None:
    await add_clients(pool, 800)
    mailing = await add_mailing(pool)
    start(sender := ScriptedSender(delay=0.01), max_concurrency=5)
    await sender.until(50)
    await pool.execute("UPDATE mailings SET state = $1", MailingState.PAUSED)
    await eventually(lambda: _leased(pool), lambda leased: leased == 0)
    sent = len(sender.requests)
    assert (await statuses(pool, mailing))[Status.DELIVERED] == sent
    assert await audit(pool) == []
    await pool.execute("UPDATE mailings SET state = $1", MailingState.RUNNING)
    await completed(pool, mailing, within=40.0)
    assert set(sender.counts.values()) == {1}


async def test_a_cancelled_mailing_ends_its_messages_unsent(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3000)
    mailing = await add_mailing(pool)
    dispatcher = start(sender := ScriptedSender(delay=0.01), max_concurrency=5)
    await sender.until(50)
    await pool.execute("UPDATE mailings SET state = $1", MailingState.CANCELLED)
    dispatcher.hint()

    async def pending() -> int:
        return (await statuses(pool, mailing))[Status.PENDING]

    await eventually(pending, lambda count: count == 0)
    found = await statuses(pool, mailing)
    assert found.keys() == {Status.DELIVERED, Status.CANCELLED}
    assert found[Status.DELIVERED] == len(sender.requests)
    assert await audit(pool) == []


async def test_a_huge_mailing_does_not_hold_up_a_small_one(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 8000)
    huge = await add_mailing(pool)
    start(sender := ScriptedSender(delay=0.01), max_concurrency=20)
    await sender.until(1000)
    small = await add_mailing(pool, where='{"client_ids": [16, 17, 18]}')
    await completed(pool, small)
    assert (await statuses(pool, huge))[Status.DELIVERED] < 8000


async def test_a_worse_endpoint_leaves_the_other_mailings_alone(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 100)
    await add_mailing(pool, endpoint="nowhere")
    mailing = await add_mailing(pool)
    start(ScriptedSender())
    await completed(pool, mailing)


async def test_concurrent_expansion_gives_everybody_one_message(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 2000)
    mailing = await add_mailing(pool)
    storages = [dispatcher_storage(DispatcherDatabase(pool), uuid4()) for _ in range(4)]
    await asyncio.gather(*(storage.plan.start_due() for storage in storages))

    async def expand(storage: Storage) -> None:
        while expansions := await storage.plan.expandable(OPEN_BATCHES):
            for bucket in expansions[0].positions:
                await storage.plan.expand(expansions[0], bucket, 500, 30)

    await asyncio.gather(*(expand(storage) for storage in storages))
    assert await statuses(pool, mailing) == {Status.PENDING: 2000}
    assert await audit(pool) == []


async def test_a_defect_in_one_round_does_not_end_the_dispatcher(pool: asyncpg.Pool, start: Start) -> None:
    class Defective(PostgresWorkQueue):
        defects = 2

        async def scan(self) -> list[OpenWork]:
            if self.defects:
                self.defects -= 1
                raise ZeroDivisionError
            return await super().scan()

    await add_clients(pool, 50)
    mailing = await add_mailing(pool)
    start(ScriptedSender(), queue=Defective(DispatcherDatabase(pool), uuid4()))
    await completed(pool, mailing)


async def test_a_mailing_whose_text_is_broken_waits_and_the_others_do_not(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 50)
    broken = await add_mailing(pool, "Hello {nobody", priority=5)
    mailing = await add_mailing(pool)
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await statuses(pool, broken) == {Status.PENDING: 50}


async def test_a_sender_that_raises_loses_no_message(pool: asyncpg.Pool, start: Start) -> None:
    class Raising(ScriptedSender):
        async def post(self, request: Request) -> Answer | None:
            reply = await super().post(request)
            if self.counts[request.message_id] == 1:
                raise ZeroDivisionError
            return reply

    await add_clients(pool, 9)  # too few for the breaker to open
    mailing = await add_mailing(pool)
    start(sender := Raising())
    await completed(pool, mailing)
    assert set(sender.counts.values()) == {2}
    assert await statuses(pool, mailing) == {Status.DELIVERED: 9}


async def test_outcomes_whose_details_cannot_be_written_are_written_without(pool: asyncpg.Pool, start: Start) -> None:
    class Picky(PostgresWorkQueue):
        async def settle(self, settlement: Settlement) -> bool:
            if settlement.failed:
                raise ValueError("no such character")
            return await super().settle(settlement)

    await add_clients(pool, 20)
    mailing = await add_mailing(pool)
    start(
        sender := ScriptedSender(lambda client, _: answer(404 if client % 2 else 200)),
        queue=Picky(DispatcherDatabase(pool), uuid4()),
    )
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 10, Status.FAILED: 10}
    assert set(sender.counts.values()) == {1}


async def test_a_planner_whose_work_waits_for_room_does_not_spin(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 8000)
    mailing = await add_mailing(pool)
    sender = ScriptedSender()
    sender.gate.clear()
    dispatcher = start(sender, max_concurrency=4)
    await sender.until(4)

    async def interval() -> float:
        return dispatcher.poll_backoff.interval

    await eventually(interval, lambda seconds: seconds >= 0.1)
    assert (await statuses(pool, mailing))[Status.PENDING] > 2000
    sender.gate.set()


async def test_what_waits_for_an_endpoint_that_hangs_expires_at_the_end(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3000)
    mailing = await add_mailing(pool, ends_in=1.0)
    sender = ScriptedSender()
    sender.gate.clear()
    start(sender, max_concurrency=8)

    async def pending() -> int:
        return (await statuses(pool, mailing))[Status.PENDING]

    await sender.until(8)
    await eventually(pending, lambda count: count <= 8)
    sender.gate.set()
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 8, Status.EXPIRED: 2992}
    assert await audit(pool) == []


async def test_a_database_that_answers_slowly_is_still_worked_for(pool: asyncpg.Pool, start: Start) -> None:
    class Slow(PostgresWorkQueue):
        async def scan(self) -> list[OpenWork]:
            work = await super().scan()
            await asyncio.sleep(2 * SCAN_AGE)
            return work

    await add_clients(pool, 50)
    mailing = await add_mailing(pool)
    start(ScriptedSender(), queue=Slow(DispatcherDatabase(pool), uuid4()))
    await completed(pool, mailing)


async def test_an_open_mailing_expanded_by_several_is_looked_at_again(
    pool: asyncpg.Pool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody saw the last bucket finish: as when two replicas share the expansion, or one dies at its end.
    monkeypatch.setattr(planner, "CHECK_INTERVAL", 0.1)
    await add_clients(pool, 50)
    mailing = await expanded(pool, audience=AudienceMode.OPEN)
    start(sender := ScriptedSender())
    await sender.until(50)
    await add_clients(pool, 3, 5000)
    await sender.until(53)
    assert set(sender.counts) == {mailing.id << 32 | n for n in (*range(16, 66), 5000, 5001, 5002)}


async def test_a_paused_mailing_does_not_hide_the_work_of_others(pool: asyncpg.Pool) -> None:
    paused, running = await add_mailing(pool, state=MailingState.PAUSED), await add_mailing(pool)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    fill = (
        "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)"
        " SELECT n % 16, $1, n, '{16}', now() - $3::interval FROM generate_series(1, $2) n"
    )
    await pool.execute(fill, paused, 10_001, timedelta(hours=1))
    assert not (await storage.plan.poll()).claims
    await pool.execute(fill, running, 1, timedelta(0))
    assert (await storage.plan.poll()).claims
