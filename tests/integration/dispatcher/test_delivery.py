"""A mailing on a real database, from its start to its last settled message."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg

from dispatcher.model.states import AudienceMode, ErrorClass, MailingState, Semantics, Status
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer, broken
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses


async def test_everybody_gets_the_message_once_and_the_ledger_says_so(pool: asyncpg.Pool, start: Start) -> None:
    clients = await add_clients(pool, 3000)
    mailing = await add_mailing(pool)
    start(sender := ScriptedSender())
    await completed(pool, mailing)
    assert sender.counts == Counter({mailing << 32 | client: 1 for client in clients})
    assert await statuses(pool, mailing) == {Status.DELIVERED: 3000}
    assert await audit(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM batches") == 0


async def test_the_filter_chooses_by_every_field(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 10, 1000, tag="a", operator_code="901", attributes='{"city": "x", "n": "1"}')
    await add_clients(pool, 10, 2000, tag="b", operator_code="901")
    await add_clients(pool, 10, 3000, tag="a", operator_code="902")
    await add_clients(pool, 10, 4000, tag="a", operator_code="901", timezone="Asia/Tokyo", attributes='{"city": "x"}')
    cases = {
        "{}": 40,
        '{"tags": ["a", "zz"]}': 30,
        '{"tags": ["a"], "operator_codes": ["901", "903"]}': 20,
        '{"timezones": ["Asia/Tokyo"], "tags": []}': 10,
        '{"attributes": {"city": "x"}}': 20,
        '{"attributes": {"city": "x", "n": "1"}}': 10,
        '{"client_ids": [1000, 2001, 9999]}': 2,
        '{"client_ids": [1000, 2001], "tags": ["b"]}': 1,
        '{"tags": ["nobody"]}': 0,
    }
    mailings = {await add_mailing(pool, where=text): size for text, size in cases.items()}
    start(ScriptedSender())
    for mailing, size in mailings.items():
        await completed(pool, mailing)
        assert (await statuses(pool, mailing)).total() == size
    assert await audit(pool) == []


async def test_a_text_with_placeholders_is_rendered_for_each_client(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 1, 20, tag="gold", attributes='{"name": "Ann"}')
    await add_clients(pool, 1, 21, tag="blue")
    mailing = await add_mailing(pool, "Dear {attributes.name|client}, {{{tag}}} {phone}")
    start(sender := ScriptedSender())
    await completed(pool, mailing)
    assert {text for _, _, text, _ in sender.requests} == {
        "Dear Ann, {gold} 79000000020",
        "Dear client, {blue} 79000000021",
    }


async def test_a_mailing_starts_by_itself_when_its_time_comes(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 5)
    mailing = await add_mailing(pool, starts_in=0.7)
    start(ScriptedSender(), poll_max=30.0)
    await completed(pool, mailing)
    early = await pool.fetchval(
        "SELECT count(*) FROM ledger m JOIN mailings g ON g.id = m.mailing_id WHERE m.settled_at < g.starts_at"
    )
    assert early == 0


async def test_an_open_mailing_takes_in_clients_that_come_later(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3)
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN, where='{"tags": ["", "late"]}')
    start(sender := ScriptedSender())
    await sender.until(3)
    await add_clients(pool, 4, 1000, tag="late")
    await add_clients(pool, 4, 2000, tag="other")
    await sender.until(7)
    state = await pool.fetchval("SELECT state FROM mailings WHERE id = $1", mailing)
    assert state == MailingState.RUNNING
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 7})


async def test_a_snapshot_mailing_takes_nobody_in_after_its_start(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3)
    mailing = await add_mailing(pool)
    sender = ScriptedSender()
    sender.gate.clear()
    start(sender)
    await sender.until(3)
    await add_clients(pool, 4, 1000)
    sender.gate.set()
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 3}


async def test_the_recheck_of_a_quiet_open_mailing_backs_off_and_recovers(pool: asyncpg.Pool, start: Start) -> None:
    mailing = await add_mailing(pool, audience=AudienceMode.OPEN)
    start(sender := ScriptedSender())

    async def interval() -> float:
        found: timedelta = await pool.fetchval("SELECT recheck_interval FROM mailings WHERE id = $1", mailing)
        return found.total_seconds()

    await eventually(interval, lambda seconds: seconds == 0.5)
    await add_clients(pool, 1)
    await sender.until(1)
    await eventually(interval, lambda seconds: seconds < 0.5)


async def test_a_client_outside_the_window_is_sent_to_when_it_opens(pool: asyncpg.Pool, start: Start) -> None:
    opens = await pool.fetchval("SELECT date_trunc('second', now()) + interval '2 s'")
    columns = {"timezone": "UTC", "window_start": opens.time(), "window_length": timedelta(hours=1)}
    await add_clients(pool, 3, **columns)
    mailing = await add_mailing(pool)
    start(ScriptedSender())
    await completed(pool, mailing)
    rows = await pool.fetch("SELECT settled_at, due_at FROM ledger")
    assert all(row["due_at"] == opens and row["settled_at"] >= opens for row in rows)
    assert len(rows) == 3


async def test_a_window_that_opens_after_the_end_expires_the_message_at_once(pool: asyncpg.Pool, start: Start) -> None:
    later = (datetime.now(UTC) + timedelta(hours=3)).time()
    await add_clients(pool, 3, timezone="UTC", window_start=later, window_length=timedelta(hours=1))
    await add_clients(pool, 2, 100)
    mailing = await add_mailing(pool, ends_in=3600)
    start(sender := ScriptedSender())
    await completed(pool, mailing)
    assert len(sender.requests) == 2
    assert await statuses(pool, mailing) == {Status.EXPIRED: 3, Status.DELIVERED: 2}
    assert await pool.fetchval("SELECT DISTINCT reason FROM ledger WHERE status = 4") == 5
    assert await audit(pool) == []


async def test_no_request_starts_after_the_end_and_the_rest_expires(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 4000)
    mailing = await add_mailing(pool, ends_in=1.0)
    start(ScriptedSender(delay=0.1), max_concurrency=20)
    await completed(pool, mailing)
    found = await statuses(pool, mailing)
    assert found.keys() == {Status.DELIVERED, Status.EXPIRED}
    assert found.total() == 4000
    late = await pool.fetchval(
        "SELECT count(*) FROM ledger m JOIN mailings g ON g.id = m.mailing_id"
        " WHERE m.status = 2 AND m.settled_at > g.ends_at + interval '1 s'"
    )
    assert late == 0
    assert await audit(pool) == []


async def test_failures_that_may_pass_are_tried_again_and_recorded(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 6)  # too few for the breaker to open
    mailing = await add_mailing(pool)
    script = [broken(ErrorClass.TIMEOUT), answer(503, b"busy"), answer()]
    start(sender := ScriptedSender(lambda _, number: script[number - 1]))
    await completed(pool, mailing)
    assert set(sender.counts.values()) == {3}
    assert await statuses(pool, mailing) == {Status.DELIVERED: 6}
    assert await pool.fetchval("SELECT DISTINCT attempts FROM ledger") == 3
    attempts = await pool.fetch("SELECT * FROM attempts WHERE client_id = 20 ORDER BY number")
    assert [(a["number"], a["error_class"], a["endpoint_status"], a["response_excerpt"]) for a in attempts] == [
        (1, ErrorClass.TIMEOUT, None, ""),
        (2, ErrorClass.SERVER, 503, "busy"),
    ]
    assert await audit(pool) == []


async def test_messages_that_fail_together_are_tried_again_in_few_batches(pool: asyncpg.Pool, start: Start) -> None:
    clients = await add_clients(pool, 3200)
    failing = {client for client in clients if client // 16 % 3 == 0}  # not so many that the breaker opens
    mailing = await add_mailing(pool, backoff=3600.0)
    start(ScriptedSender(lambda client, _: answer(500 if client in failing else 200)))
    pending = "SELECT count(*) FROM ledger WHERE mailing_id = $1 AND status = 1 AND attempts = 1"
    await eventually(lambda: pool.fetchval(pending, mailing), lambda tried: tried == len(failing))
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM batches"), lambda batches: batches <= 16 * 10)
    assert await audit(pool) == []


async def test_every_final_end_has_its_reason(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3)
    mailing = await add_mailing(pool, max_attempts=2)
    ends = {16: answer(400, b"no"), 17: answer(200, b'{"code": 7}'), 18: broken(ErrorClass.TIMEOUT)}
    start(sender := ScriptedSender(lambda client, _: ends[client]))
    await completed(pool, mailing)
    rows = await pool.fetch("SELECT client_id, status, reason, attempts, endpoint_code FROM ledger ORDER BY 1")
    assert [tuple(row) for row in rows] == [(16, 3, 1, 1, None), (17, 3, 1, 1, 7), (18, 3, 2, 2, None)]
    assert len(sender.requests) == 4
    assert await audit(pool) == []


async def test_at_most_once_never_repeats_what_may_have_arrived(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 2)
    mailing = await add_mailing(pool, semantics=Semantics.AT_MOST_ONCE)
    first = {16: broken(ErrorClass.TIMEOUT), 17: broken(ErrorClass.CONNECT, sent=False)}
    start(sender := ScriptedSender(lambda client, number: first[client] if number == 1 else answer()))
    await completed(pool, mailing)
    rows = await pool.fetch("SELECT client_id, status, reason, attempts FROM ledger ORDER BY 1")
    assert [tuple(row) for row in rows] == [(16, Status.UNKNOWN, 11, 1), (17, Status.DELIVERED, 0, 2)]
    assert len(sender.requests) == 3


async def test_clients_gone_or_opted_out_before_their_turn_are_settled_unsent(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3)
    mailing = await add_mailing(pool, endpoint="not configured here")
    start(sender := ScriptedSender())
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.PENDING: 3})
    await pool.execute("DELETE FROM clients WHERE id = 16")
    await pool.execute("UPDATE clients SET opted_out = true WHERE id = 17")
    await pool.execute("UPDATE mailings SET endpoint = '', version = version + 1")
    await completed(pool, mailing)
    rows = await pool.fetch("SELECT client_id, status, reason FROM ledger ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        (16, Status.CANCELLED, 6),
        (17, Status.SKIPPED, 8),
        (18, Status.DELIVERED, 0),
    ]
    assert len(sender.requests) == 1
    assert await audit(pool) == []
