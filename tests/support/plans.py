"""How Postgres carries a statement out: plans of prepared statements with what they really read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg


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
