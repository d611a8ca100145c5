"""`mailing-server verify`: says nothing of sound records, finds what contradicts itself, mends what it can."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.states import Status
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.verification import Verification
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender
from tests.support.ledger import add_clients, add_mailing, audit, statuses

PHONES = "INSERT INTO client_phones (phone, bucket, client_id) SELECT phone, bucket, id FROM clients"


async def delivered(pool: asyncpg.Pool, start: Start) -> int:
    """Return a mailing that was delivered to 64 clients, all of whom are found by their phones."""
    await add_clients(pool, 64)
    await pool.execute(PHONES)
    mailing = await add_mailing(pool)
    start(ScriptedSender())
    await completed(pool, mailing)
    return mailing


async def found(pool: asyncpg.Pool, repair: bool = False) -> list[tuple[str, int | None]]:
    findings = await Verification(Database(pool)).run(repair)
    return [(one.check, one.bucket) for one in findings]


async def test_records_agree_at_every_moment_of_a_mailing(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 2000)
    mailing = await add_mailing(pool)
    start(sender := ScriptedSender(delay=0.005), max_concurrency=10)
    await sender.until(1)
    rounds = 0
    while (await statuses(pool, mailing))[Status.DELIVERED] < 2000:
        assert await audit(pool) == []
        rounds += 1
    assert rounds > 1


async def test_what_contradicts_itself_is_found(pool: asyncpg.Pool, start: Start) -> None:
    await delivered(pool, start)
    assert await found(pool) == []
    await pool.execute("UPDATE mailing_counts SET n = n + 1 WHERE bucket = 3 AND status = $1", Status.DELIVERED)
    await pool.execute("UPDATE mailing_counts SET attempts = 0 WHERE bucket = 4 AND status = $1", Status.DELIVERED)
    await pool.execute("DELETE FROM mailing_figures WHERE bucket = 5 AND kind = 2")
    await pool.execute("DELETE FROM journal WHERE bucket = 6")
    await pool.execute("DELETE FROM client_phones WHERE client_id = 23")
    await pool.execute("UPDATE messages SET status = 1, settled_at = NULL WHERE client_id = 25")
    checks = await found(pool)
    assert set(checks) == {
        ("counters", 3),
        ("attempts", 4),
        ("report", 5),
        ("change feed", 6),
        ("keys", 7),
        *((check, 9) for check in ("open work", "counters", "report", "change feed")),
    }


async def test_counters_are_mended(pool: asyncpg.Pool, start: Start) -> None:
    """Attempts that were lost with a counter are not: what they ended in cannot be seen from the messages."""
    mailing = await delivered(pool, start)
    await pool.execute("UPDATE mailing_counts SET n = n + 1 WHERE bucket = 3 AND n > 0")
    lost = "DELETE FROM mailing_counts WHERE bucket = 4 AND mailing_id = $1 AND status = $2"
    await pool.execute(lost, mailing, Status.DELIVERED)
    assert await found(pool, repair=True) == [("attempts", 4)]
    assert await pool.fetchval("SELECT sum(n) FROM mailing_counts") == 64


@pytest.mark.parametrize("tried", [False, True])
async def test_messages_of_lost_batches_are_sent_after_the_repair(
    pool: asyncpg.Pool, start: Start, tried: bool
) -> None:
    """Those without rows are taken in again, as far as their clients still match."""
    await add_clients(pool, 64)
    await pool.execute(PHONES)
    mailing = await add_mailing(pool)
    plan = dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan
    await plan.start_due()
    (expansion,) = await plan.expandable(10)
    for bucket in expansion.positions:
        await plan.expand(expansion, bucket, 500, 1000)
    if tried:
        await pool.execute(
            "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at)"
            " SELECT bucket, mailing_id, client_id, created_at, due_at FROM ledger"
        )
        await pool.execute("UPDATE batches SET fresh = false")
    await pool.execute("DELETE FROM batches WHERE bucket < 4")
    check = "open work" if tried else "counters"
    assert sorted(set(await found(pool))) == [(check, bucket) for bucket in range(4)]
    assert await found(pool, repair=True) == []
    start(sender := ScriptedSender())
    await completed(pool, mailing)
    assert len(sender.requests) == 64
    assert await audit(pool) == []


async def test_a_completed_mailing_with_pending_messages_runs_again(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when their batches are opened and nobody claims them."""
    mailing = await delivered(pool, start)
    await pool.execute(
        "INSERT INTO clients (bucket, id, phone, operator_code, tag, timezone)"
        " VALUES (5, 1605, '79990000000', '999', '', 'UTC')"
    )
    await pool.execute(PHONES + " ON CONFLICT DO NOTHING")
    await pool.execute(
        "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at) VALUES (5, $1, 1605, now(), now())",
        mailing,
    )
    assert ("open work", 5) in await found(pool)
    assert await found(pool, repair=True) == []
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 65}
    assert (await audit(pool), await pool.fetchval("SELECT count(*) FROM batches")) == ([], 0)


async def test_a_batch_that_is_left_over_goes(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the mailing runs again for it, since nobody's message is pending."""
    mailing = await delivered(pool, start)
    version = "SELECT version FROM mailings"
    before = await pool.fetchval(version)
    left_over = "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at) VALUES (2, $1, 90, '{18}', now())"
    await pool.execute(left_over, mailing)
    assert await found(pool) == [("open work", 2)]
    assert await found(pool, repair=True) == []
    assert (await pool.fetchval(version), await pool.fetchval("SELECT count(*) FROM batches")) == (before, 0)


async def test_the_command_shows_what_it_found(pool: asyncpg.Pool, start: Start, database_dsn: str) -> None:
    await delivered(pool, start)
    assert await verify(database_dsn) == (0, "The records agree.\n")
    await pool.execute("DELETE FROM client_phones WHERE client_id = 23")
    status, table = await verify(database_dsn)
    assert status == 1
    assert "the phone of client 23 leads to nobody" in table
    status, document = await verify(database_dsn, "--json", "--repair")
    assert (status, [one["check"] for one in json.loads(document)["findings"]]) == (1, ["keys"])


async def verify(dsn: str, *options: str) -> tuple[int | None, str]:
    """Run `mailing-server verify`; return its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import sys; from server.cli import main; sys.exit(main(sys.argv[1:]))", "verify"),
        *options,
        env=os.environ | {"MAILING_DSN": dsn, "COLUMNS": "120"},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()
