"""Every named statement fits the schema, and every one is used."""

from __future__ import annotations

import re
from importlib.resources import files

import asyncpg
import pytest

from server.storage.queries import load_queries

FILES = sorted(entry.name for entry in files("server.storage").joinpath("sql").iterdir() if entry.name.endswith(".sql"))
SETS_UP = ("create_staging", "create_latest", "create_touched")
"""Statements of an import that make what later ones of the same file read."""


def sources() -> str:
    folder = files("server.storage")
    return "".join(entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".py"))


@pytest.mark.parametrize("file", FILES)
async def test_every_statement_can_be_prepared(pool: asyncpg.Pool, file: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        for name, text in load_queries(file).items():
            await connection.prepare(text)
            if name in SETS_UP:
                await connection.execute(text)


@pytest.mark.parametrize("file", FILES)
def test_no_statement_is_unused_and_no_used_one_is_missing(file: str) -> None:
    text = sources()
    assert f'load_queries("{file}")' in text
    named = load_queries(file)
    for name in named:
        assert f'"{name}"' in text, f"{file}: {name} is never used"


def test_the_store_asks_for_statements_that_exist() -> None:
    known = {name for file in FILES for name in load_queries(file)}
    asked = set(re.findall(r'_(?:SQL|CLIENTS|MAILINGS)\["(\w+)"\]', sources()))
    assert asked <= known


def test_statements_differ_in_their_names() -> None:
    names = [name for file in FILES for name in load_queries(file)]
    assert len(names) == len(set(names))
