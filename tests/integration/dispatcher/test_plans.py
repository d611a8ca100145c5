"""Every statement on the way of a message uses its index and reads a bounded number of rows.

On 100,000 rows that were never analyzed (a new mailing has no statistics), and after six
executions of the prepared statement (from the sixth on Postgres may take a generic plan).
Seen to fail: settle with a join on unnest, fetch without the bounds beside the array, and
every statement without its index.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from server.storage.queries import load_queries
from tests.conftest import PostgresServer
from tests.support.plans import PLAN_MODES, nodes, plan_of, planning, populated

SQL = load_queries("planning.sql") | load_queries("work_queue.sql")
MAILING, BUCKET, CLIENTS, BATCH = 1, 0, 100_000, 500
IDS = [16 * n for n in range(20_001, 20_001 + BATCH)]
KEY = {"bucket": BUCKET, "mailing_id": MAILING}
EVERYBODY = dict.fromkeys(("tags", "operator_codes", "timezones", "attributes", "chosen_ids"))
STEP = {"bucket": BUCKET, "batch_size": BATCH, "version": 1, "position": 0}
LARGE = {"messages", "clients", "batches", "client_changes", "attempts", "journal", "client_sends"}


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> str:
    """Return a database with 100,000 messages in 200 due batches of one bucket, and 20,000 batches due later."""
    rows = f"""
    INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts,
                          initial_backoff, max_backoff)
    SELECT n, 'x', now(), 2, 2, 1, 5, '1 s', '1 min' FROM generate_series(1, 3) n;
    INSERT INTO clients (bucket, id, phone, timezone)
    SELECT {BUCKET}, 16 * n, 79000000000 + n, 'UTC' FROM generate_series(1, {CLIENTS}) n;
    INSERT INTO messages (bucket, mailing_id, client_id, due_at)
    SELECT {BUCKET}, {MAILING}, 16 * n, now() FROM generate_series(1, {CLIENTS}) n;
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
    SELECT {BUCKET}, {MAILING}, min(n), array_agg(16 * n ORDER BY n), now()
    FROM generate_series(1, {CLIENTS}) n GROUP BY (n - 1) / {BATCH};
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
    SELECT n % 16, 2, n, '{{1}}', now() + interval '1 h' FROM generate_series(1000001, 1020000) n;
    INSERT INTO expansions (bucket, mailing_id, finished, change_seq)
    SELECT bucket, 1, true, 0 FROM buckets;
    INSERT INTO expansions (bucket, mailing_id, change_seq) SELECT bucket, 3, 0 FROM buckets;
    INSERT INTO client_changes (bucket, seq, client_ids)
    SELECT {BUCKET}, n, ARRAY[16 * n] FROM generate_series(1, 20000) n;
    """
    return populated(postgres_server, rows)


@pytest.fixture(params=PLAN_MODES)
async def connection(
    postgres_server: PostgresServer, database: str, request: pytest.FixtureRequest
) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a copy of it."""
    async with planning(postgres_server, database, request.param) as connection:
        yield connection


async def plan(connection: asyncpg.Connection, name: str, **arguments: Any) -> dict[str, Any]:
    """Return the plan of one of the dispatcher's statements."""
    return await plan_of(connection, *SQL[name].bind(**arguments))


def check(found: dict[str, Any], indexes: set[str], rows: int) -> None:
    """Assert the indexes by which the large tables are read, and the most rows any scan touched."""
    scans = [node for node in nodes(found) if node.get("Relation Name") in LARGE and "Scan" in node["Node Type"]]
    assert not [node for node in scans if node["Node Type"] == "Seq Scan"], found
    small = {"mailings", "buckets", "log_seqs", "expansions", "client_change_seqs"}
    small = {f"{table}_pkey" for table in small} | {
        "expansions_unfinished",
        *(f"mailings_{state}" for state in ("scheduled", "running", "paused", "recheck")),
    }
    assert {node["Index Name"] for node in nodes(found) if "Index Name" in node} - small == indexes
    for node in scans:
        touched = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        assert touched <= rows, node


def settle_arguments(statuses: list[int]) -> dict[str, Any]:
    return {
        **{name: [] for name in SQL["settle"].names},
        **KEY,
        "batch_no": 20_001,
        "fence": 0,
        "done": True,
        "endpoint": "default",
        "client_ids": IDS,
        "first_id": IDS[0],
        "last_id": IDS[-1],
        "statuses": statuses,
        "reasons": [0],
        "attempted": [1],
        "endpoint_statuses": [200],
        "endpoint_codes": [None],
        "durations": [7] * BATCH,
        "uncounted": [0],
        "attempts_before": [0],
    }


async def test_settle(connection: asyncpg.Connection) -> None:
    indexes = {"messages_pkey", "batches_pkey"}
    check(await plan(connection, "settle", **settle_arguments([2])), indexes, BATCH)


async def test_settle_of_mixed_outcomes(connection: asyncpg.Connection) -> None:
    indexes = {"messages_pkey", "batches_pkey"}
    check(await plan(connection, "settle", **settle_arguments([2, 3] * (BATCH // 2))), indexes, BATCH)


async def test_claim(connection: asyncpg.Connection) -> None:
    lease, replica_id = timedelta(seconds=60), UUID(int=1)
    found = await plan(
        connection, "claim", **KEY, version=1, state=2, most=1, lease=lease, replica_id=replica_id, held=[]
    )
    check(found, {"batches_pkey"}, CLIENTS // BATCH)


@pytest.mark.parametrize("name", ["fetch", "fetch_values"])
async def test_fetch(connection: asyncpg.Connection, name: str) -> None:
    key = {**KEY, "client_ids": IDS, "first_id": IDS[0], "last_id": IDS[-1], "max_backoff": timedelta(minutes=1)}
    found = await plan(connection, name, **key, **EVERYBODY)
    check(found, {"messages_pkey", "clients_pkey"}, BATCH)


async def test_admit(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "INSERT INTO client_sends (bucket, client_id, mailing_ids, sent_at)"
        " SELECT 0, 16 * n, array_fill(3::bigint, ARRAY[3]), array_fill(now(), ARRAY[3])"
        f" FROM generate_series(1, {CLIENTS}) n"
    )
    period = timedelta(hours=1)
    found = await plan(connection, "admit", **KEY, client_ids=IDS, period=period, cap=2, important=False)
    check(found, {"messages_pkey"}, BATCH)


async def test_expand(connection: asyncpg.Connection) -> None:
    found = await plan(connection, "expand", **STEP, mailing_id=3, limit=5000, **EVERYBODY)
    check(found, {"clients_pkey", "messages_pkey"}, 5000)


async def test_expand_for_chosen_clients(connection: asyncpg.Connection) -> None:
    chosen = {**EVERYBODY, "chosen_ids": IDS}
    found = await plan(connection, "expand", **STEP, mailing_id=3, limit=5000, **chosen)
    if (await connection.fetchval("SHOW plan_cache_mode")) == "auto":
        pytest.skip("a generic plan takes no index for them: the plan asks for one of its own")
    check(found, {"clients_pkey", "messages_pkey"}, BATCH)


async def test_expand_changes(connection: asyncpg.Connection) -> None:
    found = await plan(connection, "expand_changes", **STEP, mailing_id=1, limit=10, **EVERYBODY)
    check(found, {"client_changes_pkey", "clients_pkey", "messages_pkey"}, 10)


@pytest.mark.parametrize("name", ["scan", "poll"])
async def test_finding_work(connection: asyncpg.Connection, name: str) -> None:
    found = await plan(connection, name)
    check(found, {"batches_due"}, CLIENTS // BATCH)
