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
    return found


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
