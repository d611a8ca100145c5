"""What cannot be recorded is not sent: a database that reads and leases, but refuses outcomes.

Fails when a batch whose outcomes are held here is claimed again once its lease is over (its
people get the message once a lease), and when a refused settlement occupies a worker.
"""

from __future__ import annotations

import asyncpg

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.states import Status
from server.observability.metrics.dispatchers import samples_of
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'no outcomes today' USING ERRCODE = '{code}';
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON messages FOR EACH ROW WHEN (NEW.mailing_id = ANY ('{{{mailings}}}'))
EXECUTE FUNCTION refuse();
"""
REFUSED, DISK_FULL = "P0001", "53100"


async def refuse(pool: asyncpg.Pool, *mailings: int, code: str = REFUSED) -> None:
    await pool.execute(REFUSE.format(code=code, mailings=",".join(map(str, mailings))))


async def end_leases(pool: asyncpg.Pool) -> None:
    """Let every lease be over by the database, whatever its holder believes."""
    await pool.execute("UPDATE batches SET lease_until = now() - interval '1 s' WHERE lease_until > now()")


async def gives_up_claiming(dispatcher: Dispatcher) -> None:
    async def failing() -> bool:
        return dispatcher.recording.failing

    await eventually(failing, bool)
    assert samples_of(dispatcher)["mailing_dispatcher_unrecorded_seconds"] != {("0",): 0.0}


async def test_a_mailing_that_cannot_be_recorded_stops_itself_only(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3000)
    refused, fine = await add_mailing(pool), await add_mailing(pool)
    await refuse(pool, refused)
    dispatcher = start(sender := ScriptedSender(delay=0.005), max_concurrency=64)
    await completed(pool, fine)
    await gives_up_claiming(dispatcher)
    later = await add_mailing(pool)
    for _ in range(3):
        await end_leases(pool)
        await dispatcher_polls(dispatcher)
    await completed(pool, later)
    assert await statuses(pool, refused) == {Status.PENDING: 3000}
    await pool.execute("DROP TRIGGER refuse ON messages")
    await completed(pool, refused)
    assert max(sender.counts.values()) == 1
    for mailing in (refused, fine, later):
        assert await statuses(pool, mailing) == {Status.DELIVERED: 3000}
    assert await audit(pool) == []
    assert dispatcher.recording.failing_for == 0


async def test_nothing_is_claimed_while_no_outcome_is_taken(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3000)
    first = await add_mailing(pool)
    await refuse(pool, first, code=DISK_FULL)
    dispatcher = start(sender := ScriptedSender(delay=0.005), max_concurrency=64)
    await gives_up_claiming(dispatcher)
    held, claimed = dispatcher.registry.batch_numbers, dispatcher.registry.claimed
    second = await add_mailing(pool)
    for _ in range(3):
        await end_leases(pool)
        await dispatcher_polls(dispatcher)
    assert dispatcher.registry.claimed - claimed <= 3  # claims that were under way
    assert set(held) <= set(dispatcher.registry.batch_numbers)
    assert (await statuses(pool, second))[Status.DELIVERED] == 0
    await pool.execute("DROP TRIGGER refuse ON messages")
    await completed(pool, first)
    await completed(pool, second)
    assert max(sender.counts.values()) == 1
    assert await audit(pool) == []


async def dispatcher_polls(dispatcher: Dispatcher) -> None:
    """Return when the dispatcher has looked for work once more."""
    polled = dispatcher.poll_backoff
    dispatcher.hint()

    async def interval() -> float:
        return polled.interval

    await eventually(interval, lambda seconds: seconds > polled.poll_min)
