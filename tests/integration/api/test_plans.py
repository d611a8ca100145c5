"""Progress and report read the rows of their own mailing by the key, however many others there are.

On counters of 300 mailings that were never analyzed, after six executions of the prepared
statement. Seen to fail: without the primary key, and when the buckets are left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.domain.reports import COARSE_STEP, LONGEST_COURSE
from server.storage.queries import load_queries
from tests.conftest import PostgresServer
from tests.support.plans import PLAN_MODES, nodes, plan_of, planning, populated

SQL = load_queries("reports.sql") | load_queries("mailings.sql")
MAILING, MAILINGS, MINUTES = 77, 300, 12_000
COURSE = {"coarse_step": COARSE_STEP, "longest": LONGEST_COURSE}


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> str:
    """Return a database with counters, 13 a bucket and mailing, and figures; one mailing has a long course."""
    rows = f"""
    INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts,
                          initial_backoff, max_backoff)
    SELECT n, 'x', now(), 4, 2, 1, 5, '1 s', '1 min' FROM generate_series(1, {MAILINGS}) n;
    INSERT INTO expansions (bucket, mailing_id, finished, change_seq)
    SELECT bucket, n, true, 0 FROM buckets, generate_series(1, {MAILINGS}) n;
    INSERT INTO mailing_counts (bucket, mailing_id, status, reason, n)
    SELECT bucket, n, greatest(1, 8 - r), r, 1
    FROM buckets, generate_series(1, {MAILINGS}) n, generate_series(0, 12) r;
    INSERT INTO mailing_figures (bucket, mailing_id, kind, key, n)
    SELECT bucket, n, k, 0, 1 FROM buckets, generate_series(1, {MAILINGS}) n, generate_series(1, 4) k;
    INSERT INTO mailing_figures (bucket, mailing_id, kind, key, n)
    SELECT bucket, {MAILING}, 3, n, 1 FROM buckets, generate_series(1, {MINUTES}) n;
    """
    return populated(postgres_server, rows)


@pytest.fixture(params=PLAN_MODES)
async def connection(
    postgres_server: PostgresServer, database: str, request: pytest.FixtureRequest
) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a copy of it."""
    async with planning(postgres_server, database, request.param) as connection:
        yield connection


def check(found: dict[str, Any], table: str, rows: int) -> None:
    """Assert that `table` is read by its key, and no more than `rows` rows of it."""
    scans = [node for node in nodes(found) if node.get("Relation Name") == table]
    assert scans, found
    for node in scans:
        assert node["Node Type"] != "Seq Scan", node
        touched = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        assert touched <= rows, node
    indexes = [node for node in nodes(found) if node.get("Index Name", "").startswith(table)]
    assert {node["Index Name"] for node in indexes} == {f"{table}_pkey"}
    for node in indexes:
        assert "bucket" in node["Index Cond"]
        assert "mailing_id" in node["Index Cond"]


@pytest.mark.parametrize("ids", [[MAILING], list(range(100, 150))], ids=["one mailing", "a page"])
async def test_progress(connection: asyncpg.Connection, ids: list[int]) -> None:
    found = await plan_of(connection, *SQL["get_mailings"].bind(ids=ids))
    check(found, "mailing_counts", 16 * 13 * len(ids))
    check(found, "expansions", 16 * len(ids))


async def test_counts_of_a_report(connection: asyncpg.Connection) -> None:
    check(await plan_of(connection, *SQL["report_counts"].bind(mailing_id=MAILING)), "mailing_counts", 16 * 13)


async def test_histograms_of_a_report(connection: asyncpg.Connection) -> None:
    check(await plan_of(connection, *SQL["report_histograms"].bind(mailing_id=MAILING)), "mailing_figures", 16 * 2)


async def test_course_of_a_report(connection: asyncpg.Connection) -> None:
    found = await plan_of(connection, *SQL["report_course"].bind(mailing_id=MAILING, **COURSE))
    check(found, "mailing_figures", 16 * (LONGEST_COURSE + 2))


@pytest.mark.parametrize(("name", "arguments"), [("report_histograms", {}), ("report_course", COURSE)])
async def test_a_report_beside_one_that_has_most_of_the_rows(
    connection: asyncpg.Connection, name: str, arguments: dict[str, int]
) -> None:
    """Fails where the table is joined instead: to a plan for any mailing, half of it is a mailing's."""
    await connection.execute("DELETE FROM mailing_figures WHERE mailing_id NOT BETWEEN $1 AND $2", MAILING, MAILING + 1)
    await connection.execute("ANALYZE")
    found = await plan_of(connection, *SQL[name].bind(mailing_id=MAILING + 1, **arguments))
    check(found, "mailing_figures", 16 * 4)
