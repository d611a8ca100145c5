"""How Postgres carries a statement out: plans of prepared statements with what they really read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.conftest import TEMPLATE, PostgresServer

PLAN_MODES = ("auto", "force_custom_plan")
"""A prepared statement may get a generic plan, or a plan for its arguments each time."""


def populated(server: PostgresServer, rows: str) -> str:
    """Return the name of a new database into which `rows` were inserted; nothing in it was ever analyzed."""

    async def populate() -> str:
        name = await server.create(TEMPLATE)
        connection = await asyncpg.connect(server.dsn(name))
        try:
            await connection.execute(rows)
        finally:
            await connection.close()
        return name

    return asyncio.run(populate())


@asynccontextmanager
async def planning(server: PostgresServer, database: str, mode: str) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection to a copy of a database, on which statements are planned in this mode."""
    name = await server.create(database)
    connection = await asyncpg.connect(
        server.dsn(name), server_settings={"plan_cache_mode": mode, "jit": "off"}, statement_cache_size=0
    )
    try:
        yield connection
    finally:
        await connection.close()
        await server.drop(name)


def literal(value: Any) -> str:
    """Return the value as SQL text."""
    match value:
        case None:
            return "NULL"
        case bool() | int() | float():
            return str(value)
        case list():
            return "'{" + ", ".join("NULL" if entry is None else str(entry) for entry in value) + "}'"
        case _:
            return f"'{value}'"


async def plan_of(connection: asyncpg.Connection, sql: str, *arguments: Any) -> dict[str, Any]:
    """Return the plan of the seventh execution of a prepared statement, with what it really read."""
    await connection.execute(f"PREPARE tried AS {sql}")
    call = "EXECUTE tried" + (f" ({', '.join(map(literal, arguments))})" if arguments else "")
    for _ in range(6):
        async with rolled_back(connection):
            await connection.execute(call)
    async with rolled_back(connection):
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}")
    await connection.execute("DEALLOCATE tried")
    found: dict[str, Any] = json.loads(text)[0]["Plan"]
    wholes = {row["part"]: row["whole"] for row in await connection.fetch(_PARTITIONS)}
    for node in nodes(found):
        for key in node.keys() & {"Relation Name", "Index Name"}:
            node[key] = wholes.get(node[key], node[key])
    return found


async def reads_of(connection: asyncpg.Connection, sql: str, *arguments: Any) -> tuple[set[str], dict[str, int]]:
    """Return the tables that the seventh execution of a statement scans, and the entries that it reads of each index.

    Statements inside functions are counted, too, whose plans are not shown.
    """
    statement = await connection.prepare(sql)
    for _ in range(6):
        async with rolled_back(connection):
            await statement.fetch(*arguments)
    before = {row["name"]: row["n"] for row in await connection.fetch(_READS)}
    async with rolled_back(connection):
        await statement.fetch(*arguments)
        after = {
            row["name"]: (row["is_index"], row["n"] - before.get(row["name"], 0)) for row in await _fetch(connection)
        }
    tables = {name for name, (is_index, n) in after.items() if n and not is_index}
    return tables, {name: n for name, (is_index, n) in after.items() if n and is_index}


async def partitions_locked(connection: asyncpg.Connection, sql: str, *arguments: Any) -> list[str]:
    """Return the partitions of messages that the seventh execution of a statement locks."""
    statement = await connection.prepare(sql)
    for _ in range(6):
        async with rolled_back(connection):
            await statement.fetch(*arguments)
    async with rolled_back(connection):
        await statement.fetch(*arguments)
        rows = await connection.fetch(_LOCKED)
    return [row["name"] for row in rows]


_LOCKED = """
SELECT DISTINCT l.relation::regclass::text AS name FROM pg_locks l JOIN pg_inherits i ON i.inhrelid = l.relation
WHERE l.pid = pg_backend_pid() AND i.inhparent = 'messages'::regclass
"""

_PARTITIONS = """
SELECT c.relname AS part, p.relname AS whole
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
"""
"""Partitions of tables and of indexes, with what they are parts of."""

_READS = f"""
SELECT coalesce(w.whole, c.relname) AS name, c.relkind = 'i' AS is_index, sum(
  CASE c.relkind WHEN 'i' THEN pg_stat_get_xact_tuples_returned(c.oid) ELSE pg_stat_get_xact_numscans(c.oid) END
)::bigint AS n
FROM pg_class c LEFT JOIN ({_PARTITIONS}) w ON w.part = c.relname
WHERE c.relkind IN ('r', 'i') AND c.relnamespace = 'public'::regnamespace
GROUP BY 1, 2
"""
"""Scans of whole tables, and entries read of indexes, that are not in the statistics yet; partitions add up."""


async def _fetch(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(_READS)
    return rows


class rolled_back:
    """A transaction that leaves nothing."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._transaction = connection.transaction()

    async def __aenter__(self) -> None:
        await self._transaction.start()

    async def __aexit__(self, *_: object) -> None:
        await self._transaction.rollback()


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    yield node
    for child in node.get("Plans", []):
        yield from nodes(child)
