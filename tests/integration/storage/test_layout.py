"""Every table and function of the schema has its place on a cluster."""

from __future__ import annotations

import asyncpg

from server.storage.layout import DELEGATED, TABLES

TABLES_OF_ITS_OWN = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
FUNCTIONS = "SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'"


async def test_every_table_has_a_place(pool: asyncpg.Pool) -> None:
    """Fails when a migration adds a table of which nobody decided where it stands: a cluster would refuse it."""
    assert {row["relname"] for row in await pool.fetch(TABLES_OF_ITS_OWN)} == set(TABLES)


async def test_every_delegated_function_exists(pool: asyncpg.Pool) -> None:
    assert set(DELEGATED) <= {row["proname"] for row in await pool.fetch(FUNCTIONS)}
