"""How the ledger's tables become partitioned, and how partitions come and go, beside everything that goes on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.tasks import in_background
from server.config import Settings
from server.storage import migrate as module
from server.storage import partitions as module_of_partitions
from server.storage.database import Database
from server.storage.migrate import load_migrations, migrate
from server.storage.partitions import AHEAD, Partitions
from server.storage.pool import open_pool
from tests.support.eventually import eventually
from tests.support.ledger import add_mailing
from tests.support.locks import holding

MESSAGES = """
INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at) SELECT n % 16, $1, n, now(), now()
FROM generate_series($2::int, $3::int) n
"""
PLACES = "SELECT tableoid::regclass::text AS name, count(*) AS n FROM messages GROUP BY 1 ORDER BY 1"


@pytest.fixture
async def unpartitioned(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on a database of the release whose tables were no partitions yet."""
    with monkeypatch.context() as patch:
        older = [one for one in load_migrations() if one.file.partition("_")[2] not in _NEW]
        patch.setattr(module, "load_migrations", lambda: older)
        await migrate(empty_dsn)
    async with open_pool(empty_dsn, Settings()) as opened:
        yield opened


_NEW = ("ledger_bound.sql", "ledger_bound_checked.sql", "ledger_partitions.sql", "partition_plans.sql")


async def places(pool: asyncpg.Pool) -> dict[str, int]:
    return {row["name"]: row["n"] for row in await pool.fetch(PLACES)}


async def test_tables_are_taken_over_as_they_are(unpartitioned: asyncpg.Pool, empty_dsn: str) -> None:
    """Fails when rows are copied, or when the rights of a user are lost."""
    pool = unpartitioned
    await pool.execute("CREATE ROLE reader")
    await pool.execute("GRANT SELECT, INSERT ON messages TO reader")
    mailing_id = await add_mailing(pool)
    await pool.execute(MESSAGES, mailing_id, 1, 100)
    file = await pool.fetchval("SELECT pg_relation_filepath('messages')")
    await migrate(empty_dsn)
    assert await pool.fetchval("SELECT pg_relation_filepath('messages_first')") == file
    assert await places(pool) == {"messages_first": 100}
    rights = "SELECT has_table_privilege('reader', 'messages', 'INSERT, SELECT')"
    assert await pool.fetchval(rights)
    await pool.execute("DROP OWNED BY reader; DROP ROLE reader")
    await pool.execute(MESSAGES, mailing_id, 101, 200)
    await pool.execute(MESSAGES, mailing_id + 5000, 1, 100)
    assert await places(pool) == {"messages_first": 200, "messages_rest": 100}


async def test_nobody_waits_for_the_migration(
    unpartitioned: asyncpg.Pool, empty_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages are written, and a long report is read, while it runs. Fails when it waits for its locks in line."""
    pool = unpartitioned
    mailing_id = await add_mailing(pool)
    waits: list[float] = []

    async def write() -> None:
        while True:
            began = time.monotonic()
            await pool.execute(MESSAGES, mailing_id, 10 * len(waits), 10 * len(waits) + 9)
            waits.append(time.monotonic() - began)

    async def written() -> int:
        return len(waits)

    with caplog.at_level(logging.INFO):
        async with in_background(write(), "writer"):
            async with holding(pool, "SELECT FROM messages"):
                migrating = asyncio.create_task(migrate(empty_dsn))
                await eventually(lambda: caplog.text.count("a migration waits") > 1)
                seen = await written()
            applied = await migrating
            await eventually(written, lambda n: n > seen + 10)
    assert set(applied) >= {one.version for one in load_migrations() if one.file.partition("_")[2] in _NEW}
    assert max(waits) < 1.0
    assert await places(pool) == {"messages_first": await pool.fetchval("SELECT count(*) FROM ledger")}


RANGES = "SELECT suffix, lower, upper FROM ledger_partitions ORDER BY lower"


async def ranges(pool: asyncpg.Pool) -> list[tuple[str, int, int]]:
    return [tuple(row) for row in await pool.fetch(RANGES)]


async def test_partitions_are_added_ahead_a_day_each(pool: asyncpg.Pool) -> None:
    partitions = Partitions(Database(pool))
    assert await partitions.add_ahead() == AHEAD
    assert await partitions.add_ahead() == 0
    assert await ranges(pool) == [("first", 0, 1), *((str(n), n, n + 1) for n in range(1, 1 + AHEAD))]
    for _ in range(3):
        await add_mailing(pool)
    await partitions.add_ahead()
    assert (await ranges(pool))[1 + AHEAD :] == [("5", 5, 8), ("8", 8, 11), ("11", 11, 14)]


async def test_partitions_widen_where_there_are_many(pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of_partitions, "FEW", 3)
    await pool.execute("SELECT add_ledger_partition_v1(n, 1) FROM generate_series(1, 2) n")
    await pool.execute("SELECT setval('mailing_id', 2)")
    await Partitions(Database(pool)).add_ahead()
    assert [(lower, upper) for _, lower, upper in await ranges(pool)][3:] == [(3, 5), (5, 7), (7, 9), (9, 11)]


async def test_two_replicas_add_each_partition_once(pool: asyncpg.Pool) -> None:
    partitions = Partitions(Database(pool))
    added = await asyncio.gather(partitions.add_ahead(), partitions.add_ahead())
    assert sum(added) == AHEAD
    assert len(await ranges(pool)) == 1 + AHEAD


async def test_what_came_too_early_stays_in_the_rest(pool: asyncpg.Pool) -> None:
    """Its mailing goes on there. Fails when a partition is added for ids that have messages."""
    mailing_id = await add_mailing(pool)
    await pool.execute(MESSAGES, mailing_id, 1, 100)
    await Partitions(Database(pool)).add_ahead()
    await pool.execute(MESSAGES, mailing_id, 101, 200)
    await pool.execute(MESSAGES, mailing_id + 1, 1, 100)
    assert await places(pool) == {"messages_2": 100, "messages_rest": 200}


async def test_a_partition_that_would_have_to_wait_is_added_later(pool: asyncpg.Pool) -> None:
    """Fails when it waits for its locks: everybody else would wait behind it."""
    partitions = Partitions(Database(pool))
    async with holding(pool, "LOCK TABLE messages_rest IN ROW EXCLUSIVE MODE"):
        assert await partitions.add_ahead() == 0
    assert await partitions.add_ahead() == AHEAD


async def test_a_user_without_rights_on_tables_changes_partitions(pool: asyncpg.Pool) -> None:
    """The service may be another user than the owner of the tables."""
    await pool.execute("CREATE ROLE plain")
    await pool.execute("GRANT SELECT ON mailings TO plain")
    async with pool.acquire() as connection:
        await connection.execute("SET ROLE plain")
        assert await connection.fetchval("SELECT add_ledger_partition_v1(1, 1)") == 2
        assert not await connection.fetchval("SELECT drop_ledger_partition_v1('1')")
        await connection.execute("RESET ROLE")
    await pool.execute("DROP OWNED BY plain; DROP ROLE plain")
