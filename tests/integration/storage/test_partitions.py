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
from server.storage.migrate import load_migrations, migrate
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
