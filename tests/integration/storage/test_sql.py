"""Every named statement fits the schema."""

from __future__ import annotations

import asyncpg
import pytest

from server.storage.queries import load_queries
from tests.support.project import ROOT

FILES = sorted(path.name for path in (ROOT / "server" / "storage" / "sql").glob("*.sql"))
SETS_UP = ("create_staging", "create_latest", "create_touched")
"""Statements of an import that make what later ones of the same file read."""


@pytest.mark.parametrize("file", FILES)
async def test_every_statement_can_be_prepared(pool: asyncpg.Pool, file: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        for name, query in load_queries(file).items():
            statement = await connection.prepare(query.text)
            assert len(statement.get_parameters()) == len(query.names), name
            if name in SETS_UP:
                await connection.execute(query.text, *[None] * len(query.names))
