"""No statement relies on one of its parts not seeing what another part of it writes.

All parts of a statement read the same snapshot, so a part that reads a table which another one
modifies, without a reference between the two, depends on Postgres running them as if neither had
happened. Where the order matters it is said: by a reference, or by a statement of its own.
"""

from __future__ import annotations

import re
from itertools import permutations
from typing import NamedTuple

import pytest

from server.storage.migrate import load_migrations
from server.storage.queries import load_queries
from tests.support.project import ROOT

_PART = re.compile(r"(?:\bWITH|,)\s+(\w+) AS (?:MATERIALIZED )?\(")
_BODY = re.compile(r"AS \$\$(.*?)\$\$", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*")
_WRITES = re.compile(r"\b(?:INSERT INTO|DELETE FROM|(?<!FOR )(?<!DO )UPDATE) (\w+)")
_READS = re.compile(r"\b(?:FROM|JOIN|USING|DELETE FROM|UPDATE) (\w+)")

DISJOINT = {
    ("replicas.sql", "beat", "main", "swept"): "swept leaves the replica itself out",
}
"""Pairs of a part that writes and one that reads the same table, with why they touch different rows."""


class Part(NamedTuple):
    """A part of a statement: the tables that it writes and reads, and the parts on which it depends."""

    writes: frozenset[str]
    reads: frozenset[str]
    needs: frozenset[str]


def parts_of(sql: str) -> dict[str, Part]:
    """Return the parts of a statement by name, the last one as `main`."""
    sql = _COMMENT.sub("", sql)
    bodies: dict[str, str] = {}
    end = 0
    for match in _PART.finditer(sql):
        end = _closing(sql, match.end())
        bodies[match[1]] = sql[match.end() : end]
    bodies["main"] = sql[end:]
    names = bodies.keys() - {"main"}
    direct = {name: {n for n in names - {name} if re.search(rf"\b{n}\b", body)} for name, body in bodies.items()}
    return {
        name: Part(
            frozenset(_WRITES.findall(body)),
            frozenset(_READS.findall(body)) - names,
            frozenset(_closure(name, direct)),
        )
        for name, body in bodies.items()
    }


def _closing(sql: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(sql[at], 0)
        at += 1
    return at - 1


def _closure(name: str, direct: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [name]
    while ahead:
        fresh = direct[ahead.pop()] - found
        found |= fresh
        ahead += fresh
    return found


def blind_pairs(parts: dict[str, Part]) -> list[tuple[str, str]]:
    """Return the parts that write, each with one that reads the same table and has no order with it."""
    return [
        (writer, reader)
        for writer, reader in permutations(parts, 2)
        if parts[writer].writes & parts[reader].reads
        and writer not in parts[reader].needs
        and reader not in parts[writer].needs
    ]


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "server/storage/sql").glob("*.sql")))
def test_no_part_of_a_statement_relies_on_not_seeing_another(file: str) -> None:
    found = {(file, name, *pair) for name, q in load_queries(file).items() for pair in blind_pairs(parts_of(q.text))}
    assert found == {key for key in DISJOINT if key[0] == file}


def test_no_statement_of_a_function_relies_on_it_either() -> None:
    bodies = [body for one in load_migrations() for body in _BODY.findall(_COMMENT.sub("", one.script))]
    assert any("INSERT INTO messages" in body for body in bodies)
    found = [pair for body in bodies for sql in body.split(";") for pair in blind_pairs(parts_of(sql)) if "WITH" in sql]
    assert found == []


def test_a_part_that_must_not_see_another_is_found() -> None:
    blind = "WITH a AS (INSERT INTO t SELECT 1), b AS (DELETE FROM t WHERE x) SELECT count(*) FROM b"
    assert blind_pairs(parts_of(blind)) == [("a", "b")]
    told = "WITH b AS (DELETE FROM t WHERE x RETURNING y), a AS (INSERT INTO t SELECT y FROM b) SELECT 1 FROM a"
    assert blind_pairs(parts_of(told)) == []
    assert blind_pairs(parts_of("WITH a AS (UPDATE t SET x = 1) SELECT x FROM t")) == [("a", "main")]
