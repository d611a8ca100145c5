"""Every named statement fits the schema."""

from __future__ import annotations

import asyncpg
import pytest

from server.storage.queries import load_queries
from tests.support.statements import FILES, SETS_UP


@pytest.mark.parametrize("file", FILES)
async def test_every_statement_can_be_prepared(pool: asyncpg.Pool, file: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        for name, query in load_queries(file).items():
            statement = await connection.prepare(query.text)
            assert len(statement.get_parameters()) == len(query.names), name
            if name in SETS_UP:
                await connection.execute(query.text, *[None] * len(query.names))
