"""What the database does when a dispatcher cannot know whether its statement took effect.

Each of these was found by a schedule of tests/simulation.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from dispatcher import retry_policy as policy
from dispatcher.model.batches import ClaimedBatch
from dispatcher.model.mailings import Mailing
from dispatcher.model.outcomes import Outcome, Settlement
from dispatcher.model.states import MailingState, Reason, Semantics, Status
from dispatcher.ports import Storage
from server.storage.client_deletion import ClientDeletion
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.installation import Installation
from server.storage.mailing_retry import MailingRetry
from tests.support.ledger import BUCKETS, add_clients, add_mailing, audit, database_now

BUCKET = 0


async def prepare(pool: asyncpg.Pool, semantics: Semantics = Semantics.AT_LEAST_ONCE) -> tuple[Storage, Mailing]:
    """Return a running mailing with a batch of three messages in one bucket."""
    for client_id in (16, 32, 48):
        await add_clients(pool, 1, client_id)
    mailing_id = await add_mailing(pool, semantics=semantics)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (expansion,) = await storage.plan.expandable(10)
    await storage.plan.expand(expansion, BUCKET, 500, 1000)
    return storage, (await storage.queue.definitions([mailing_id]))[mailing_id]


async def claim(storage: Storage, mailing: Mailing) -> list[ClaimedBatch]:
    return await storage.queue.claim(mailing, BUCKET, 1, 60.0, None)


async def test_an_outcome_whose_answer_was_lost_is_not_recorded_twice(pool: asyncpg.Pool) -> None:
    """One message is to be tried again, the others were not begun; the dispatcher asks a second time."""
    storage, mailing = await prepare(pool)
    (batch,) = await claim(storage, mailing)
    again = Outcome(
        Status.PENDING, Reason.RETRYING, 1, 500, None, 1, await database_now(pool) + timedelta(seconds=1), None
    )
    assert await storage.queue.settle(Settlement.of(batch, "default", [(16, 0, again)], True, [32, 48]))
    await storage.queue.settle(Settlement.of(batch, "default", [(16, 0, again)], True, [32, 48]))
    assert await audit(pool) == []
    assert await pool.fetchval("SELECT attempts FROM ledger WHERE client_id = 16") == 1


async def test_a_mailing_that_was_paused_before_it_was_read_is_not_claimed(pool: asyncpg.Pool) -> None:
    """It was running when the open work was looked for, and paused when its definition was read."""
    storage, mailing = await prepare(pool)
    await pool.execute("UPDATE mailings SET state = 3, version = version + 1")
    paused = (await storage.queue.definitions([mailing.id]))[mailing.id]
    assert paused.state is MailingState.PAUSED
    assert await claim(storage, paused) == []


async def test_a_claim_whose_answer_was_lost_leaves_a_message_maybe_sent(pool: asyncpg.Pool) -> None:
    """The first holder may have sent them; the second never heard of its claim and gave it back."""
    first, mailing = await prepare(pool, Semantics.AT_MOST_ONCE)
    await claim(first, mailing)
    await pool.execute("UPDATE batches SET lease_until = now() - interval '1 s'")
    second = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    (batch,) = await claim(second, mailing)
    assert batch.reclaimed
    await second.queue.release_orphans([])
    (batch,) = await claim(dispatcher_storage(DispatcherDatabase(pool), uuid4()), mailing)
    assert batch.reclaimed
    outcome = policy.without_sending(mailing, batch.recipients[0], batch.reclaimed, batch.claimed_at)
    assert outcome is not None
    assert outcome.status is Status.UNKNOWN


async def test_cancelling_leaves_messages_of_a_dead_holder_unknown(pool: asyncpg.Pool) -> None:
    """Also those that the next holder gives back, or puts off, before the end."""
    storage, mailing = await prepare(pool)
    await claim(storage, mailing)
    await pool.execute("UPDATE batches SET lease_until = now() - interval '1 s'")
    (batch,) = await claim(storage, mailing)
    put_off = policy.put_off(await database_now(pool) - timedelta(seconds=1))
    assert await storage.queue.settle(Settlement.of(batch, "default", [(16, 0, put_off)], True, [32, 48]))
    await pool.execute("UPDATE mailings SET state = $1, version = version + 1", MailingState.CANCELLED)
    cancelled = (await storage.queue.definitions([mailing.id]))[mailing.id]
    for _ in range(2):
        await end_all(storage, cancelled)
    rows = await pool.fetch("SELECT status, reason FROM ledger")
    assert {tuple(row) for row in rows} == {(Status.UNKNOWN, Reason.MAYBE_SENT)}
    assert await audit(pool) == []


async def end_all(storage: Storage, mailing: Mailing) -> None:
    """Claim a batch and record what becomes of it without sending."""
    (batch,) = await claim(storage, mailing)
    ended = [
        (one.client_id, one.attempts, policy.without_sending(mailing, one, batch.reclaimed, batch.claimed_at))
        for one in batch.recipients
    ]
    assert await storage.queue.settle(Settlement.of(batch, "default", [e for e in ended if e[2] is not None], True))  # type: ignore[misc]


async def test_a_lost_answer_stays_in_doubt_over_retries_and_deletions(pool: asyncpg.Pool) -> None:
    storage, mailing = await prepare(pool)
    (batch,) = await claim(storage, mailing)
    lost = Outcome(Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, 1, None, None, 1, None, None, 0, True)
    refused = Outcome(Status.FAILED, Reason.REFUSED, 1, 404, None, 1, None, None)
    settled = [(16, 0, lost), (32, 0, refused), (48, 0, lost)]
    assert await storage.queue.settle(Settlement.of(batch, "default", settled, True))
    assert await MailingRetry(Database(pool), lambda: None).retry(mailing.id, [Status.FAILED, Status.UNKNOWN]) == 3
    deletion = ClientDeletion(Database(pool), Installation(BUCKETS, frozenset({"UTC"}), UUID(int=0)))
    assert [await deletion.delete(client_id, "") for client_id in (16, 32)] == [0, 1]
    mailing = (await storage.queue.definitions([mailing.id]))[mailing.id]
    (batch,) = await claim(storage, mailing)
    assert [(one.client_id, one.maybe_sent, one.phone is None) for one in batch.recipients] == [
        (16, True, True),
        (48, True, False),
    ]


@pytest.mark.parametrize("before", [0, 1])
async def test_a_retried_message_is_in_one_batch_while_its_first_is_held(pool: asyncpg.Pool, before: int) -> None:
    """Were that holder to die, both batches would send it. Fails without `take_from_batches`, `delete_batches_of`.

    So it is in the first batch of all, whose messages have no rows, and in later ones.
    """
    storage, mailing = await prepare(pool)
    (batch,) = await claim(storage, mailing)
    refused = Outcome(Status.FAILED, Reason.REFUSED, 1, 404, None, 1, None, None)
    retry = MailingRetry(Database(pool), lambda: None)
    if before:
        assert await storage.queue.settle(
            Settlement.of(batch, "default", [(i, 0, refused) for i in (16, 32, 48)], True)
        )
        assert await retry.retry(mailing.id, [Status.FAILED]) == 3
        (batch,) = await claim(storage, mailing)
    assert await storage.queue.settle(Settlement.of(batch, "default", [(16, before, refused)], False))
    assert await retry.retry(mailing.id, [Status.FAILED]) == 1
    assert await audit(pool) == []
    rest = [(32, before, refused), (48, before, refused)]
    assert await storage.queue.settle(Settlement.of(batch, "default", rest, False))
    assert await retry.retry(mailing.id, [Status.FAILED]) == 2
    assert await audit(pool) == []
    await storage.queue.settle(Settlement.of(batch, "default", [], True))
    assert await audit(pool) == []
    assert await pool.fetch("SELECT FROM batches WHERE no = $1", batch.no) == []
