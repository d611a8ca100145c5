"""Every statement on the way of a message uses its index and reads a bounded number of rows.

On 100,000 rows, or PLAN_CLIENTS (`make plans`: a million), that were never analyzed (a new mailing has
no statistics), and after six executions of the prepared statement (from the sixth on Postgres may take a
generic plan). What a function reads is counted. Seen to fail: settle with a join on unnest, a claim without the bounds
beside the array, and every statement without its index.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from dispatcher.model.states import Status
from server.domain.filters import AttributeCondition, ClientFilter, MailingCondition, Op
from server.storage.filters import Condition, audience_of_filter, bind, condition_of
from server.storage.queries import load_queries
from server.storage.work_queue import array_text
from tests.conftest import PostgresServer
from tests.support.plans import PLAN_MODES, nodes, partitions_locked, plan_of, planning, populated, reads_of

SQL = load_queries("clients.sql") | load_queries("planning.sql") | load_queries("work_queue.sql")
MAILING, FRESH, NEW = 1, 3, 4
"""Mailings whose messages have rows, whose messages have none yet, and without any."""

PARTITIONS = 40
"""Of one mailing each."""

BUCKET, CLIENTS, BATCH = 0, int(os.environ.get("PLAN_CLIENTS", "100000")), 500


def one_attribute(op: Op, *values: str) -> ClientFilter:
    return ClientFilter(attribute_conditions=(AttributeCondition("age", op, values),))


IDS = [16 * n for n in range(20_001, 20_001 + BATCH)]
KEY = {"bucket": BUCKET, "mailing_id": MAILING}
EVERYBODY = dict.fromkeys(("tags", "operator_codes", "timezones", "attributes", "chosen_ids"))
STEP = {"bucket": BUCKET, "batch_size": BATCH, "version": 1, "position": 0, "condition": None, "literals": None}
TAGGED = ClientFilter(tags=("b",))
FURTHER: dict[str, tuple[ClientFilter, dict[str, int]]] = {
    "order": (one_attribute(Op.GREATER, "30"), {}),
    "time": (one_attribute(Op.LESS, "2026-01-01"), {}),
    "one of many": (one_attribute(Op.NOT_IN, *map(str, range(1000))), {}),
    "beginnings": (one_attribute(Op.PREFIX, "a", "ab", "b"), {}),
    "exists": (one_attribute(Op.EXISTS), {}),
    "phone": (ClientFilter(phone_prefixes=("7900", "79")), {}),
    "added": (ClientFilter(created_since=datetime(2026, 1, 1, tzinfo=UTC)), {}),
    "groups": (
        ClientFilter(any_of=(ClientFilter(tags=("a",)), ClientFilter(none_of=(ClientFilter(tags=("b",)),)))),
        {},
    ),
    "delivered": (ClientFilter(only_mailings=(MailingCondition(MAILING),)), {"messages_pkey": 1}),
    "not delivered": (ClientFilter(exclude_mailings=(MailingCondition(MAILING),)), {"messages_pkey": 1}),
    "waiting": (
        ClientFilter(any_of=(ClientFilter(only_mailings=(MailingCondition(FRESH, (Status.PENDING,)),)),)),
        {"batches_reach": CLIENTS // BATCH},
    ),
}
"""Filters with conditions beside the plain fields, and the entries of other indexes read for each client."""
LARGE = {"messages", "clients", "batches", "client_changes", "attempts", "journal", "client_sends", "blocks"}


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> str:
    """Return a database with CLIENTS messages in due batches of one bucket, and 20,000 batches due later."""
    rows = f"""
    SELECT add_ledger_partition_v1(n, 1) FROM generate_series(1, {PARTITIONS}) n;
    INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts,
                          initial_backoff, max_backoff)
    SELECT n, 'x', now(), 2, 2, 1, 5, '1 s', '1 min' FROM generate_series(1, 4) n;
    INSERT INTO clients (bucket, id, phone, timezone)
    SELECT {BUCKET}, 16 * n, 79000000000 + n, 'UTC' FROM generate_series(1, {CLIENTS}) n;
    INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at)
    SELECT {BUCKET}, {MAILING}, 16 * n, now(), now() FROM generate_series(1, {CLIENTS}) n;
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
    SELECT {BUCKET}, {MAILING}, min(n), array_agg(16 * n ORDER BY n), now()
    FROM generate_series(1, {CLIENTS}) n GROUP BY (n - 1) / {BATCH};
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, fresh)
    SELECT {BUCKET}, 3, {CLIENTS} + min(n), array_agg(16 * n ORDER BY n), now(), true
    FROM generate_series(1, {CLIENTS}) n GROUP BY (n - 1) / {BATCH};
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
    SELECT n % 16, 2, n, '{{1}}', now() + interval '1 h' FROM generate_series(1000001, 1020000) n;
    INSERT INTO expansions (bucket, mailing_id, finished, change_seq)
    SELECT bucket, 1, true, 0 FROM buckets;
    INSERT INTO expansions (bucket, mailing_id, change_seq) SELECT bucket, 4, 0 FROM buckets;
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


async def check_reads(connection: asyncpg.Connection, name: str, reads: dict[str, int], **arguments: Any) -> None:
    """Assert by which indexes of the large tables a function reads, how many entries at most, and no whole table."""
    scanned, found = await reads_of(connection, *SQL[name].bind(**arguments))
    assert not scanned & LARGE
    large = {index: n for index, n in found.items() if index.rpartition("_")[0] in LARGE or index in reads}
    assert large.keys() == reads.keys()
    for index, most in reads.items():
        assert large[index] <= most, index


def settle_arguments(mailing_id: int, statuses: list[int]) -> dict[str, Any]:
    first = CLIENTS if mailing_id == FRESH else 0
    return {
        **{name: [] for name in SQL["settle"].names},
        **KEY,
        "mailing_id": mailing_id,
        "batch_no": first + 20_001,
        "fence": 0,
        "done": True,
        "endpoint": "default",
        "client_ids": array_text(IDS),
        "statuses": statuses,
        "reasons": [0],
        "attempted": [1],
        "endpoint_statuses": [200],
        "endpoint_codes": [None],
        "durations": array_text([7] * BATCH),
        "uncounted": [0],
        "maybe_sent": [False],
        "attempts_before": [0],
    }


@pytest.mark.parametrize("statuses", [[2], [2, 3] * (BATCH // 2)], ids=["alike", "mixed"])
async def test_settle(connection: asyncpg.Connection, statuses: list[int]) -> None:
    # Each execution that was rolled back leaves entries of the rows that it wrote.
    reads = {"messages_pkey": 3 * BATCH, "batches_pkey": 2}
    await check_reads(connection, "settle", reads, **settle_arguments(MAILING, statuses))


@pytest.mark.parametrize("statuses", [[2], [2, 3] * (BATCH // 2)], ids=["alike", "mixed"])
async def test_settle_of_a_fresh_batch(connection: asyncpg.Connection, statuses: list[int]) -> None:
    await check_reads(connection, "settle", {"batches_pkey": 2}, **settle_arguments(FRESH, statuses))


def claim_arguments(mailing_id: int, with_values: bool = False) -> dict[str, Any]:
    return {
        **KEY,
        "mailing_id": mailing_id,
        "version": 1,
        "state": 2,
        "most": 1,
        "lease": timedelta(seconds=60),
        "replica_id": UUID(int=1),
        "held": [],
        "max_backoff": timedelta(minutes=1),
        "with_values": with_values,
        **EVERYBODY,
    }


@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize("mailing_id", [MAILING, FRESH])
async def test_claim(connection: asyncpg.Connection, mailing_id: int, with_values: bool) -> None:
    reads = {"batches_pkey": CLIENTS // BATCH + 2, "clients_pkey": BATCH, "messages_pkey": 2 * BATCH}
    if mailing_id == FRESH:
        del reads["messages_pkey"]
    arguments = claim_arguments(mailing_id, with_values)
    await check_reads(connection, "claim", reads, **arguments)


async def test_admit(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "INSERT INTO client_sends (bucket, client_id, mailing_ids, sent_at)"
        " SELECT 0, 16 * n, array_fill(3::bigint, ARRAY[3]), array_fill(now(), ARRAY[3])"
        f" FROM generate_series(1, {CLIENTS}) n"
    )
    period = timedelta(hours=1)
    reads = {"client_sends_pkey": 3 * BATCH, "messages_pkey": BATCH}
    await check_reads(connection, "admit", reads, **KEY, client_ids=IDS, period=period, cap=2, important=False)


async def test_expand(connection: asyncpg.Connection) -> None:
    """The first pass over the clients looks at nothing else."""
    await check_reads(connection, "expand", {"clients_pkey": 5000}, **STEP, mailing_id=NEW, limit=5000, **EVERYBODY)


@pytest.mark.parametrize("mailing_id", [MAILING, FRESH])
async def test_expand_once_more(connection: asyncpg.Connection, mailing_id: int) -> None:
    await connection.execute(
        "INSERT INTO expansions (bucket, mailing_id, change_seq, reached) SELECT bucket, $1, 0, 1 << 30 FROM buckets"
        " ON CONFLICT (bucket, mailing_id) DO UPDATE SET finished = false, reached = excluded.reached",
        mailing_id,
    )
    reads = {"clients_pkey": 1000, "messages_pkey": 1000, "batches_reach": 1000 * CLIENTS // BATCH, "blocks_reach": 0}
    if mailing_id == MAILING:
        del reads["batches_reach"]
    else:
        del reads["messages_pkey"]
    del reads["blocks_reach"]
    await check_reads(connection, "expand", reads, **STEP, mailing_id=mailing_id, limit=1000, **EVERYBODY)


async def test_expand_for_chosen_clients(connection: asyncpg.Connection) -> None:
    """By the key, in a plan for any arguments as well: who looks up a few would read all otherwise."""
    chosen = {**EVERYBODY, "chosen_ids": IDS}
    await check_reads(connection, "expand", {"clients_pkey": BATCH}, **STEP, mailing_id=NEW, limit=5000, **chosen)


@pytest.mark.parametrize("name", FURTHER)
async def test_expand_with_further_conditions(connection: asyncpg.Connection, name: str) -> None:
    """Each client that is read is looked up once more, and their message of another mailing by the key."""
    condition, reads = further(name)
    step = {**STEP, "condition": condition.positional(), "literals": condition.literals}
    reads = {index: 1000 * n for index, n in reads.items()} | {"clients_pkey": 2000}
    await check_reads(connection, "expand", reads, **step, mailing_id=NEW, limit=1000, **EVERYBODY)


@pytest.mark.parametrize("name", FURTHER)
async def test_asking_again_before_the_send(connection: asyncpg.Connection, name: str) -> None:
    condition, reads = further(name)
    asked = {"bucket": BUCKET, "client_ids": IDS}
    asked |= {"condition": condition.positional(), "literals": condition.literals}
    reads = {index: BATCH * n for index, n in reads.items()} | {"clients_pkey": BATCH}
    await check_reads(connection, "no_longer_match", reads, **asked)


@pytest.mark.parametrize("name", FURTHER)
async def test_a_page_reads_clients_by_the_key_and_looks_up_the_rest(connection: asyncpg.Connection, name: str) -> None:
    """Until it is full. Fails when a mailing that is asked for is joined, and when the clients are read and sorted."""
    chosen, reads = FURTHER[name]
    page: dict[str, Any] = {"after": 0, "limit": 100, "receiving_now": False}
    statement = bind(SQL["list_clients"], chosen, **page, default_start=None, default_length=None)
    scanned, found = await reads_of(connection, *statement)
    assert not scanned & LARGE
    for index, n in reads.items():
        assert found[index] <= n * found["clients_pkey"]
    matches_nobody = name in ("order", "time", "exists", "beginnings", "delivered")
    assert found["clients_pkey"] <= (CLIENTS if matches_nobody else 101)


def further(name: str) -> tuple[Condition, dict[str, int]]:
    chosen, reads = FURTHER[name]
    condition = condition_of(audience_of_filter(chosen))
    assert condition is not None
    return condition, dict(reads)


async def test_expand_changes(connection: asyncpg.Connection) -> None:
    reads = {"client_changes_pkey": 10, "clients_pkey": 10, "messages_pkey": 10}
    await check_reads(connection, "expand_changes", reads, **STEP, mailing_id=MAILING, limit=10, **EVERYBODY)


@pytest.mark.parametrize("name", ["scan", "poll"])
async def test_finding_work(connection: asyncpg.Connection, name: str) -> None:
    found = await plan(connection, name)
    check(found, {"batches_due"} | ({"day_quotas_pkey"} if name == "scan" else set()), 2 * CLIENTS // BATCH)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("settle", settle_arguments(MAILING, [2])),
        ("settle", settle_arguments(FRESH, [2, 3] * (BATCH // 2))),
        ("claim", claim_arguments(MAILING)),
        ("expand_changes", {**STEP, "mailing_id": MAILING, "limit": 10, **EVERYBODY}),
    ],
)
async def test_no_partition_is_locked_but_the_mailings_own(
    connection: asyncpg.Connection, name: str, arguments: dict[str, Any]
) -> None:
    """Fails with a plan for any mailing: it has, and locks, all partitions."""
    locked = await partitions_locked(connection, *SQL[name].bind(**arguments))
    assert locked == [f"messages_{arguments['mailing_id']}"]
