"""Mailings that are read again and again: what was read before is given only as long as nothing was written."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from server.domain.mailings import Mailing
from server.storage.database import Database, SharedDatabase
from server.storage.mailing_reads import MailingReads
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing

LONG = 1.0
"""Seconds: many reads share a session, and a test that is over does not wait for its end."""

WRITES = {
    "its definition": "UPDATE mailings SET title = 'new' WHERE id = $1",
    "its messages": "INSERT INTO mailing_counts (bucket, mailing_id, status, n) VALUES (3, $1, 1, 7)",
    "its receipts": "INSERT INTO receipt_counts (bucket, mailing_id, receipt, code, n) VALUES (3, $1, 2, '', 7)",
    "its expansion": "INSERT INTO expansions (bucket, mailing_id, change_seq, finished) VALUES (3, $1, 0, true)",
    "its end": "DELETE FROM mailings WHERE id = $1",
}


async def confirmed(reads: MailingReads, mailing_id: int) -> Mailing:
    """Return the mailing once it was given without being read anew, which other tests' writes prevent at times."""
    last: Mailing | None = None

    async def again() -> bool:
        nonlocal last
        before, last = last, await reads.get(mailing_id)
        return last is before

    await eventually(again)
    assert last is not None
    return last


@pytest.mark.parametrize("statement", WRITES.values(), ids=WRITES)
async def test_a_read_sees_what_was_written_before(pool: asyncpg.Pool, statement: str) -> None:
    """Fails when what is known is given without asking the database."""
    mailing_id = await add_mailing(pool)
    reads = MailingReads(Database(pool), LONG)
    before = await confirmed(reads, mailing_id)
    await pool.execute(statement, mailing_id)
    after = await reads.get(mailing_id)
    assert after != before
    assert [await reads.get(mailing_id) for _ in range(40)] == [after] * 40


async def test_readers_never_see_less_than_was_committed(pool: asyncpg.Pool) -> None:
    """Fails when a statement that began before the call answers it."""
    mailing_id = await add_mailing(pool)
    await pool.execute("INSERT INTO mailing_counts (bucket, mailing_id, status, n) VALUES (0, $1, 1, 0)", mailing_id)
    reads, committed, writing = MailingReads(Database(pool), LONG), 0, True

    async def write() -> None:
        nonlocal committed, writing
        for n in range(1, 120):
            await pool.execute("UPDATE mailing_counts SET n = $2 WHERE mailing_id = $1", mailing_id, n)
            committed = n
            for _ in range(n % 7):
                await reads.get(mailing_id)
        writing = False

    async def read() -> None:
        while writing:
            least = committed
            mailing = await reads.get(mailing_id)
            assert mailing is not None
            assert mailing.progress.pending >= least

    await asyncio.gather(write(), *(read() for _ in range(5)))


async def test_a_rate_is_read_anew_each_time(pool: asyncpg.Pool) -> None:
    """Fails when a mailing with a rate is kept: the rate falls although nothing is written."""
    mailing_id = await add_mailing(pool)
    await pool.execute(
        "INSERT INTO mailing_counts (bucket, mailing_id, status, n, slot, slot_n, before_n, first_at)"
        " VALUES (0, $1, 2, 900, rate_slot(now()), 900, 900, now() - interval '1 hour')",
        mailing_id,
    )
    reads = MailingReads(Database(pool), LONG)
    seen = [await reads.get(mailing_id) for _ in range(40)]
    assert len({id(one) for one in seen}) == 40
    assert all(one is not None and one.progress.rate > 0 for one in seen)


async def test_a_cluster_is_read_anew_each_time(pool: asyncpg.Pool) -> None:
    """Fails when two moments that nobody knows are taken for the same one."""
    mailing_id = await add_mailing(pool)
    reads = MailingReads(Database(pool), LONG)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL allow_system_table_mods = on; CREATE TABLE pg_catalog.pg_dist_node ()")
    try:
        seen = [await reads.get(mailing_id) for _ in range(40)]
    finally:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL allow_system_table_mods = on; DROP TABLE pg_catalog.pg_dist_node")
    assert len({id(one) for one in seen}) == 40


async def test_no_connection_is_kept_where_none_is_left(pool: asyncpg.Pool) -> None:
    """Fails when the last connection of a pool waits for the next reader."""
    mailing_id = await add_mailing(pool)
    await add_clients(pool, 1)
    shared = SharedDatabase(pool)
    reads = MailingReads(shared.service, 60.0)
    async with asyncio.timeout(30):
        held = [await pool.acquire() for _ in range(shared.size - 1)]
        assert await reads.get(mailing_id) is not None
        async with shared.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM clients") == 1
        for one in held:
            await pool.release(one)


async def test_a_lost_connection_is_replaced(pool: asyncpg.Pool) -> None:
    mailing_id = await add_mailing(pool)
    reads = MailingReads(Database(pool), LONG)
    await confirmed(reads, mailing_id)
    other = await pool.acquire()
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    await pool.release(other)

    async def readable() -> bool:
        try:
            return await reads.get(mailing_id) is not None
        except Exception:  # the ones that were under way
            return False

    await eventually(readable)
