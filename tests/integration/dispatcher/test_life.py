"""What changes between the start and the last message: audiences, definitions, ends, windows."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.states import AudienceMode, MailingState, Reason, Status
from dispatcher.planner import CHECK_INTERVAL
from dispatcher.retry_policy import OPEN_BATCHES
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed, ends
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, database_now, statuses


async def change(pool: asyncpg.Pool, mailing: int, **columns: Any) -> None:
    """Change a mailing as the API does: the version rises with it."""
    sets = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, 2))
    await pool.execute(f"UPDATE mailings SET {sets}, version = version + 1 WHERE id = $1", mailing, *columns.values())


async def waiting(pool: asyncpg.Pool, start: Start, count: int, **columns: Any) -> tuple[int, ScriptedSender]:
    """Return a mailing to `count` clients, one of which hangs at the endpoint while nobody else has been sent to."""
    mailing = await add_mailing(pool, **columns)
    sender = ScriptedSender()
    sender.gate.clear()
    start(sender, max_concurrency=1)
    await sender.until(1)
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.PENDING: count})
    leased = "SELECT count(*) FROM batches WHERE lease_until > now()"
    await eventually(lambda: pool.fetchval(leased), lambda batches: batches > 1)
    return mailing, sender


async def change_what_is_leased(pool: asyncpg.Pool, mailing: int, **columns: Any) -> None:
    """Change a mailing; return when its leases are given up, but for the one of which a request is under way."""
    leased = "SELECT no, fence FROM batches WHERE lease_until > now()"
    before = {tuple(row) for row in await pool.fetch(leased)}
    await change(pool, mailing, **columns)

    async def unchanged() -> int:
        return len(before & {tuple(row) for row in await pool.fetch(leased)})

    await eventually(unchanged, lambda kept: kept <= 1)


async def test_texts_that_are_empty_or_too_long_for_a_client_are_skipped(pool: asyncpg.Pool, start: Start) -> None:
    mailing = await add_mailing(pool, "{attributes.x}")
    (fine,) = await add_clients(pool, 1, attributes='{"x": "Hello"}')
    (silent,) = await add_clients(pool, 1, first=17)
    (empty,) = await add_clients(pool, 1, first=18, attributes='{"x": ""}')
    (long,) = await add_clients(pool, 1, first=19, attributes=f'{{"x": "{"y" * 307}"}}')
    start(ScriptedSender(), max_sms_segments=2)
    await completed(pool, mailing)
    assert await ends(pool, mailing) == {
        fine: (Status.DELIVERED, Reason.NONE),
        silent: (Status.SKIPPED, Reason.EMPTY_TEXT),
        empty: (Status.SKIPPED, Reason.EMPTY_TEXT),
        long: (Status.SKIPPED, Reason.TOO_LONG),
    }
    assert await audit(pool) == []


async def test_a_phone_that_was_added_again_does_not_get_an_open_mailing_twice(
    pool: asyncpg.Pool, start: Start
) -> None:
    """Fails when the expansion, or the look at changed clients, does not ask what the phone received."""
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN)
    before = await add_clients(pool, 2, first=16, received=[mailing])
    others = await add_clients(pool, 2, first=32, received=[mailing + 1])
    sender = ScriptedSender()
    start(sender)
    await sender.until(2)
    late = await add_clients(pool, 2, first=48, received=[mailing])
    later = await add_clients(pool, 1, first=64)
    await sender.until(3)
    sent = {request[0] & 0xFFFFFFFF for request in sender.requests}
    assert sent == {*others, *later}
    assert sent.isdisjoint([*before, *late])


async def test_whoever_no_longer_matches_before_their_turn_is_skipped(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the fetch does not look at the filter (seen with `skip_reason` fixed to 0)."""
    clients = await add_clients(pool, 40, tag="news")
    columns = {"audience": AudienceMode.OPEN, "where": '{"tags": ["news", "vip"]}'}
    mailing, sender = await waiting(pool, start, 40, **columns)
    sent = sender.requests[0][0] & 0xFFFFFFFF
    left, stays = [one for one in clients if one != sent][:2]
    await pool.execute("UPDATE clients SET tag = 'none' WHERE id = $1", left)
    await pool.execute("UPDATE clients SET tag = 'vip' WHERE id = $1", stays)
    await change_what_is_leased(pool, mailing, title="so that what is leased already is looked at again")
    sender.gate.set()
    found = await eventually(lambda: ends(pool, mailing), lambda found: all(one != (1, 0) for one in found.values()))
    assert found.pop(left) == (Status.SKIPPED, Reason.NO_LONGER_MATCHES)
    assert set(found.values()) == {(Status.DELIVERED, Reason.NONE)}
    assert await audit(pool) == []


async def test_an_expansion_cut_off_at_its_last_step_is_rechecked(pool: asyncpg.Pool, start: Start) -> None:
    """The replica that took the last step was killed before it set when to look again; the next one does so at once."""
    await add_clients(pool, 30)
    await add_mailing(pool, audience=AudienceMode.OPEN)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
    for bucket in expansion.positions:
        while not (await storage.plan.expand(expansion, bucket, 500, 1000)).finished:
            (expansion,) = await storage.plan.expandable(OPEN_BATCHES)
    start(sender := ScriptedSender())
    await sender.until(30)
    await add_clients(pool, 5, first=5000)
    await sender.until(35, within=CHECK_INTERVAL / 2)


async def test_a_fixed_audience_stays_as_it_was_at_the_start(pool: asyncpg.Pool, start: Start) -> None:
    clients = await add_clients(pool, 20, tag="news")
    mailing, sender = await waiting(pool, start, 20, where='{"tags": ["news"]}')
    await pool.execute("UPDATE clients SET tag = 'none'")
    await change_what_is_leased(pool, mailing, title="x")
    sender.gate.set()
    await completed(pool, mailing)
    assert set((await ends(pool, mailing)).values()) == {(Status.DELIVERED, Reason.NONE)}
    assert len(sender.counts) == len(clients)


async def test_unsent_messages_follow_a_new_text_and_sent_ones_stay(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 30)
    mailing, sender = await waiting(pool, start, 30, text="old")
    await change_what_is_leased(pool, mailing, text="new")
    sender.gate.set()
    await completed(pool, mailing)
    texts = [text for _, _, text, _ in sender.requests]
    assert texts[0] == "old"
    assert set(texts[1:]) == {"new"}
    assert len(texts) == 30


async def test_a_mailing_moved_into_the_future_stops_until_then(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 30)
    mailing, sender = await waiting(pool, start, 30)
    later = await database_now(pool) + timedelta(seconds=2)
    await change_what_is_leased(pool, mailing, state=MailingState.SCHEDULED, starts_at=later)
    sender.gate.set()
    await completed(pool, mailing)
    early = await pool.fetchval("SELECT count(*) FROM ledger WHERE settled_at < $1", later)
    assert early == 1
    assert await statuses(pool, mailing) == {Status.DELIVERED: 30}
    assert await audit(pool) == []


async def test_giving_back_what_was_not_sent_touches_no_message(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 400)
    mailing, sender = await waiting(pool, start, 400)
    await change_what_is_leased(pool, mailing, state=MailingState.PAUSED)
    sender.gate.set()
    await eventually(lambda: statuses(pool, mailing), lambda found: found[Status.DELIVERED] == 1)
    await eventually(
        lambda: pool.fetchval("SELECT count(*) FROM batches WHERE holder IS NOT NULL"), lambda held: held == 0
    )
    assert await pool.fetchval("SELECT count(*) FROM messages") == 1, "the others stand in their batches alone"
    assert await audit(pool) == []


async def test_a_nearer_end_expires_at_once_what_waits_for_a_later_window(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when `expedite` looks only at mailings that are over."""
    later = (datetime.now(UTC) + timedelta(hours=3)).time()
    await add_clients(pool, 3, timezone="UTC", window_start=later, window_length=timedelta(hours=1))
    mailing = await add_mailing(pool, ends_in=86_400)
    dispatcher = start(ScriptedSender())
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.PENDING: 3})
    await change(pool, mailing, ends_at=await database_now(pool) + timedelta(hours=1))
    dispatcher.hint()
    await completed(pool, mailing)
    assert set((await ends(pool, mailing)).values()) == {(Status.EXPIRED, Reason.WINDOW_NOT_BEFORE_END)}
    assert await audit(pool) == []


async def test_a_retry_that_would_come_after_the_end_is_expired_at_once(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 1)
    mailing = await add_mailing(pool, ends_in=600.0, backoff=3600.0)
    start(ScriptedSender(lambda _, __: answer(429, retry_after="3600")))
    await completed(pool, mailing)
    assert set((await ends(pool, mailing)).values()) == {(Status.EXPIRED, Reason.MAILING_ENDED)}
    assert await pool.fetchval("SELECT count(*) FROM attempts") == 1
    assert await audit(pool) == []


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
async def test_windows_and_ends_hold_with_a_process_clock_an_hour_wrong(
    pool: asyncpg.Pool, start: Start, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """Only the database's clock counts."""
    now = time.time
    opens = await pool.fetchval("SELECT date_trunc('second', now()) + interval '2 s'")
    window = {"timezone": "UTC", "window_start": opens.time(), "window_length": timedelta(minutes=30)}
    await add_clients(pool, 20, 10_000, **window)
    await add_clients(pool, 2000)
    mailing = await add_mailing(pool, ends_in=3.0)
    await pool.execute("UPDATE mailings SET max_rate = 400")
    monkeypatch.setattr(time, "time", lambda: now() + wrong)
    start(sender := ScriptedSender())
    await completed(pool, mailing)
    ends_at = await pool.fetchval("SELECT ends_at FROM mailings")
    real_now = now() - time.monotonic()
    late = [at for *_, at in sender.requests if real_now + at > ends_at.timestamp()]
    early = [one for one, _, _, at in sender.requests if one & 0xFFFF >= 10_000 and real_now + at < opens.timestamp()]
    assert (late, early) == ([], [])
    found = await statuses(pool, mailing)
    assert found[Status.DELIVERED] > 500
    assert found[Status.EXPIRED] > 500


async def test_the_rest_expires_at_the_end_and_the_mailing_completes_promptly(pool: asyncpg.Pool, start: Start) -> None:
    """Also what nobody has claimed, what is put off, and what hangs at the endpoint of another batch."""
    later = (datetime.now(UTC) + timedelta(seconds=40)).time().replace(microsecond=0)
    await add_clients(pool, 500, 10_000, timezone="UTC", window_start=later, window_length=timedelta(hours=1))
    await add_clients(pool, 3000)
    mailing = await add_mailing(pool, ends_in=1.5)
    start(ScriptedSender(delay=0.1), max_concurrency=10, poll_max=30.0)
    await completed(pool, mailing)
    row = await pool.fetchrow(
        "SELECT max(m.settled_at) - g.ends_at AS settled, g.updated_at - g.ends_at AS completed"
        " FROM ledger m JOIN mailings g ON g.id = m.mailing_id GROUP BY g.ends_at, g.updated_at"
    )
    assert row["settled"] < timedelta(seconds=5)  # on a machine that does nothing else: within one
    assert row["completed"] < timedelta(seconds=5)
    assert (await statuses(pool, mailing)).keys() == {Status.DELIVERED, Status.EXPIRED}
    assert await audit(pool) == []


async def test_a_held_mailing_sends_nothing_and_begins_when_resumed(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when a mailing without an audience yet counts as one that has nothing left to do."""
    mailing = await add_mailing(pool, state=MailingState.PAUSED)
    await add_clients(pool, 3)
    start(ScriptedSender())
    await completed(pool, await add_mailing(pool))
    assert await statuses(pool, mailing) == {}
    assert await pool.fetchval("SELECT state FROM mailings WHERE id = $1", mailing) == MailingState.PAUSED
    await change(pool, mailing, state=MailingState.SCHEDULED)
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 3}


async def test_a_mailing_that_is_held_until_its_end_expires_for_everybody(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when it is completed without a message for anybody."""
    mailing = await add_mailing(pool, starts_in=-2.0, ends_in=-1.0, state=MailingState.PAUSED)
    await add_clients(pool, 3)
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.EXPIRED: 3}
    assert await audit(pool) == []
