"""Every statement says what it means to one server and to a cluster of Citus alike.

A cluster refuses some ways to say a thing, and runs others in a way that is slow or wrong: each rule here
is one of these, as Citus 13.2 does it. Statements that touch only tables of the coordinator run there, by
Postgres itself, and may be as they like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from server.storage.layout import DELEGATED, NUMBERED, TABLES, Place
from server.storage.migrate import load_migrations
from server.storage.queries import load_queries
from tests.support.project import ROOT
from tests.support.statements import FILES

TEMPORARY = {"import_rows", "import_latest", "import_touched"}

_COMMENT = re.compile(r"--[^\n]*")
_TABLE = re.compile(r"\b(?:FROM|JOIN|USING|INTO|UPDATE)\s+(?:ONLY\s+)?(\w+)")
_FUNCTION = re.compile(
    r"CREATE (?:OR REPLACE )?FUNCTION (\w+)\((.*?)\)\s*\n?\s*(?:RETURNS.*?)?LANGUAGE (\w+)(.*?)AS \$\$(.*?)\$\$",
    re.DOTALL,
)
_UPDATE = re.compile(
    r"(?<!FOR )(?<!DO )\bUPDATE (\w+)(?: (?:AS )?\w+)?\s+SET\b(.*?)(?=\bWHERE\b|\bFROM\b|\bRETURNING\b|;|$)", re.DOTALL
)
_DO_UPDATE = re.compile(
    r"\bINSERT INTO (\w+)(?:(?!\bINSERT INTO\b).)*?\bDO UPDATE SET\b(.*?)(?=\bWHERE\b|\bRETURNING\b|;|\n\)|$)",
    re.DOTALL,
)
_MOMENT = re.compile(r"\b(?:now|clock_timestamp|statement_timestamp|rate_slot|rate_slot_share)\(")
_VOLATILE = re.compile(r"\b(?:random|gen_random_uuid|nextval|clock_timestamp)\(")
_LATERAL_AGGREGATE = re.compile(
    r"LATERAL \(\s*SELECT\s+(?:coalesce\()?(?:count|sum|min|max|bool_and|bool_or|array_agg)\("
)
_CAST = re.compile(r"\b[a-z]\w*\.[a-z]\w*::(?:date|time|interval)")
_CHANGES = re.compile(r"\b(?:INSERT INTO|DELETE FROM|(?<!FOR )(?<!DO )UPDATE) (\w+)")


def statements() -> Iterator[tuple[str, str]]:
    """Yield the name and text of every statement, and of every function in its last version."""
    for file in FILES:
        for name, query in load_queries(file).items():
            yield f"{file} {name}", _COMMENT.sub("", query.text)
    for name, (_, body) in functions().items():
        yield f"function {name}", body


def functions() -> dict[str, tuple[str, str]]:
    """Return the language and body of every function, as the last migration that has it leaves it."""
    found = {}
    for migration in load_migrations():
        for name, _, language, _, body in _FUNCTION.findall(_COMMENT.sub("", migration.script)):
            found[name] = (language, body)
    return found


def tables_of(sql: str) -> set[str]:
    """Return the tables of nodes that a statement names, views read as what is behind them."""
    views = {"ledger": {"messages", "batches", "blocks"}, "unwritten": {"batches", "blocks"}}
    named = set(_TABLE.findall(sql))
    named |= {table for view in named & views.keys() for table in views[view]}
    return {table for table in named if TABLES.get(table) in (Place.BUCKET, Place.PHONE, Place.EVERYWHERE)}


def selects_nothing(sql: str) -> bool:
    """A node gets the text of a subquery, in which an empty list of columns reads as the start of something else."""
    return re.search(r"\bSELECT\s+FROM\b", sql) is not None


def moment_in_an_update(sql: str) -> bool:
    """An update is computed on every node: what differs from call to call must be a value of its own."""
    for table, assignments in _UPDATE.findall(sql):
        if table not in TABLES or TABLES[table] is Place.COORDINATOR:
            continue
        if _VOLATILE.search(assignments) or re.search(r"\bnow\(\)\s*[-+]\s*\(?[a-z]", _but_intervals(assignments)):
            return True
        if any(_MOMENT.search(part) for part in _conditional(assignments)):
            return True
        if re.search(r"\b(?:\w+\.)?\w+_at [-+] interval '", assignments):
            return True
    return False


def moment_in_a_conflict(sql: str) -> bool:
    """What DO UPDATE computes must follow from the two rows alone: take the moment from `excluded`."""
    return any(
        _MOMENT.search(assignments)
        for table, assignments in _DO_UPDATE.findall(sql)
        if table in TABLES and TABLES[table] is not Place.COORDINATOR
    )


def cast_in_an_update(sql: str) -> bool:
    """A text read as a date depends on the session: cast the parameter, not the column that it becomes."""
    changed = {table for table, _ in _UPDATE.findall(sql)}
    return bool(changed & tables_of(sql)) and _CAST.search(sql) is not None


def subquery_beside_groups(sql: str) -> bool:
    """A node gets what follows from a grouped key as a column that is not grouped: ask it of the groups instead."""
    return bool(tables_of(sql)) and any(
        "GROUP BY" in rest and re.search(r"\(\s*SELECT\b", columns) for columns, rest in _selects(sql)
    )


def lock_across_buckets(sql: str) -> bool:
    """Rows are locked on one node: those of one bucket, or of a table that is everywhere, read alone."""
    for match in re.finditer(r"\bFOR UPDATE\b", sql):
        own = _same_depth(sql[: match.start()])
        locked = {table for table in _TABLE.findall(own) if TABLES.get(table) in (Place.BUCKET, Place.PHONE)}
        if locked and not re.search(r"\bbucket = (?:\$\d+|p_bucket)", own):
            return True
    return False


def lateral_aggregate(sql: str) -> bool:
    """An aggregate for each row of another table is computed nowhere: group instead. One bucket is one server."""
    return (
        _LATERAL_AGGREGATE.search(sql) is not None
        and bool(tables_of(sql))
        and not re.search(r"\bbucket = (?:\$\d+|p_bucket)", sql)
    )


def computed_values_of_a_bucket(sql: str) -> bool:
    """A node keeps the plan of an insert only if its values are plain; it copies an array of which it takes a part."""
    return any(
        re.search(r"\bnextval\(|\w\[", values)
        for values in re.findall(r"\bVALUES \((p_bucket\b.*?\)?)\)(?=;|\s+ON CONFLICT|\s+RETURNING)", sql, re.DOTALL)
    )


def constant_bucket(sql: str) -> bool:
    """A statement is sent to the node of its parameter; a constant in its place is planned again for each call."""
    return bool(tables_of(sql)) and re.search(r"\bbucket = -?\d", sql) is not None


def change_everywhere_by_buckets(sql: str) -> bool:
    """Tables that are everywhere are changed by what is read before, in a part of its own."""
    for table in _CHANGES.findall(sql):
        if TABLES.get(table) is not Place.EVERYWHERE:
            continue
        last = sql[sql.rindex(table) :] if sql.count(f"UPDATE {table}") else ""
        if any(TABLES.get(one) is Place.BUCKET for one in _TABLE.findall(last)):
            return True
    return False


RULES: tuple[Callable[[str], bool], ...] = (
    selects_nothing,
    moment_in_an_update,
    moment_in_a_conflict,
    cast_in_an_update,
    subquery_beside_groups,
    lock_across_buckets,
    lateral_aggregate,
    computed_values_of_a_bucket,
    constant_bucket,
    change_everywhere_by_buckets,
)

ACCEPTED = {
    (
        "selects_nothing",
        "function empty_ledger_partition_v1",
    ): "of a table that every node has, read on the coordinator",
    ("selects_nothing", "function drop_ledger_partition_v1"): "of a table that every node has, read on the coordinator",
    ("lateral_aggregate", "function add_ledger_partition_v1"): "for each bucket, on the node that has it",
    ("subquery_beside_groups", "client_import.sql fill_touched"): "of no row, so it is computed before",
}
"""Rules that do not apply, with the reason."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_statement_keeps_the_rule(rule: Callable[[str], bool]) -> None:
    found = {(rule.__name__, name) for name, sql in statements() if rule(sql)}
    assert found == {key for key in ACCEPTED if key[0] == rule.__name__}, rule.__doc__


@pytest.mark.parametrize(
    ("rule", "refused", "fine"),
    [
        (
            selects_nothing,
            "SELECT 1 WHERE EXISTS (SELECT FROM batches)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM batches)",
        ),
        (moment_in_an_update, "UPDATE clients SET a = CASE WHEN b THEN now() END", "UPDATE clients SET a = now()"),
        (moment_in_an_update, "UPDATE batches SET a = now() + (b - c)", "UPDATE batches SET a = now() + $1::interval"),
        (
            moment_in_an_update,
            "UPDATE mailings SET a = least(now(), ends_at - interval '1 s')",
            "UPDATE mailings SET a = least(now(), b.next_at)",
        ),
        (moment_in_an_update, "UPDATE messages SET a = nextval('s')", "UPDATE rate_slots SET a = nextval('s')"),
        (
            moment_in_a_conflict,
            "INSERT INTO journal VALUES (1) ON CONFLICT (a) DO UPDATE SET at = now()",
            "INSERT INTO journal VALUES (1) ON CONFLICT (a) DO UPDATE SET at = excluded.at",
        ),
        (
            cast_in_an_update,
            "UPDATE day_quotas q SET used = 0 FROM unnest($1::text[]) AS r(day) WHERE q.day = r.day::date",
            "UPDATE day_quotas q SET used = 0 FROM unnest($1::text[]::date[]) AS r(day) WHERE q.day = r.day",
        ),
        (
            subquery_beside_groups,
            "SELECT m.id, CASE WHEN m.a THEN EXISTS (SELECT 1 FROM day_quotas) END "
            "FROM batches b JOIN mailings m ON m.id = b.mailing_id GROUP BY m.id, b.bucket",
            "SELECT m.id, EXISTS (SELECT 1 FROM day_quotas WHERE key = m.id) FROM (SELECT m.id, count(*) "
            "FROM batches b JOIN mailings m ON m.id = b.mailing_id GROUP BY m.id, b.bucket) m",
        ),
        (lock_across_buckets, "SELECT 1 FROM batches FOR UPDATE", "SELECT 1 FROM batches WHERE bucket = $1 FOR UPDATE"),
        (
            lateral_aggregate,
            "SELECT 1 FROM mailings m CROSS JOIN LATERAL (SELECT count(*) FROM batches WHERE mailing_id = m.id) b",
            "SELECT 1 FROM mailings m JOIN (SELECT mailing_id, count(*) FROM batches GROUP BY 1) b ON true",
        ),
        (
            computed_values_of_a_bucket,
            "INSERT INTO batches (bucket, client_ids) VALUES (p_bucket, p_ids[1 : 500]);",
            "INSERT INTO batches (bucket, client_ids) VALUES (p_bucket, v_part);",
        ),
        (
            computed_values_of_a_bucket,
            "INSERT INTO batches (bucket, no) VALUES (p_bucket, nextval('batch_no'));",
            "INSERT INTO batches (bucket, no) VALUES (p_bucket, v_no) ON CONFLICT DO NOTHING;",
        ),
        (constant_bucket, "SELECT 1 FROM batches WHERE bucket = 0", "SELECT 1 FROM batches WHERE bucket = $1"),
        (
            change_everywhere_by_buckets,
            "UPDATE mailings SET a = 1 WHERE id IN (SELECT mailing_id FROM batches)",
            "WITH b AS MATERIALIZED (SELECT a FROM batches) UPDATE mailings SET a = 1 WHERE id IN (SELECT a FROM b)",
        ),
    ],
)
def test_a_rule_tells_what_is_refused_from_what_is_not(rule: Callable[[str], bool], refused: str, fine: str) -> None:
    assert rule(refused)
    assert not rule(fine)


def test_no_statement_calls_a_function_in_sql_that_reads_tables() -> None:
    """Such a function is put into the statement that calls it by one server, and by no node."""
    spread = {name for name, place in TABLES.items() if place in (Place.BUCKET, Place.PHONE)}
    reading = {name for name, (language, body) in functions().items() if language == "sql" and tables_of(body) & spread}
    calling = {name for name, sql in statements() if any(re.search(rf"\b{one}\(", sql) for one in reading)}
    assert calling == set()


def test_every_step_of_a_bucket_runs_on_its_node() -> None:
    called = {
        name
        for file in FILES
        for query in load_queries(file).values()
        for name in re.findall(r"FROM (\w+)\(\s*p_bucket => \$", query.text)
    }
    assert {name for name in called if name not in DELEGATED} == set()
    assert set(DELEGATED) <= functions().keys()


def test_numbers_taken_on_nodes_come_from_the_sequence_of_a_column() -> None:
    bodies = [body for _, body in functions().values() if re.search(r"\bp_bucket\b", body)]
    taken = {one for body in bodies for one in re.findall(r"nextval\('(\w+)'\)", body)}
    assert taken == set(NUMBERED.values())


@pytest.mark.parametrize("file", [one.file for one in load_migrations() if one.version > "0029"])
def test_a_later_migration_can_follow_on_a_cluster(file: str) -> None:
    """A node gets the whole text in which a table is changed, unless a block runs it; it names no constraint itself."""
    script = _COMMENT.sub("", (ROOT / "server" / "storage" / "migrations" / file).read_text())
    outside = re.sub(r"\bDO \$\$.*?\$\$;", "", script, flags=re.DOTALL)
    changed = re.findall(r"\bALTER TABLE (?:ONLY )?(\w+)", outside)
    assert [table for table in changed if TABLES.get(table) is not Place.COORDINATOR] == []
    assert not re.search(r"ADD COLUMN[^,;]*\b(?:CHECK|UNIQUE|REFERENCES|PRIMARY KEY)\b", script)


def _selects(sql: str) -> Iterator[tuple[str, str]]:
    """Yield of every SELECT its list of columns, and what follows at the same depth."""
    for start in re.finditer(r"\bSELECT\b", sql):
        parts: list[str] = []
        depth, columns = 0, ""
        for at, character in enumerate(sql[start.end() :], start.end()):
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth < 0 or character == ";":
                break
            if depth == 0 and not columns and re.match(r"\bFROM\b", sql[at:]):
                columns, parts = sql[start.end() : at], []
            if depth == 0:
                parts.append(character)
        yield columns, "".join(parts)


def _same_depth(sql: str) -> str:
    """Return the end of a text since the last SELECT that stands in no other parentheses than the end does."""
    kept: list[str] = []
    depth = 0
    for character in reversed(sql):
        depth += {")": 1, "(": -1}.get(character, 0)
        if depth < 0 or character == ";":
            break
        if depth == 0:
            kept.append(character)
    text = "".join(reversed(kept))
    return text[max(text.rfind("SELECT"), 0) :]


def _conditional(sql: str) -> list[str]:
    """Return what stands between CASE and its END, and inside coalesce()."""
    return [*re.findall(r"\bCASE\b.*?\bEND\b", sql, re.DOTALL), *re.findall(r"\bcoalesce\([^,]*(?:,[^,]*)\)", sql)]


def _but_intervals(sql: str) -> str:
    """Return it without lengths of time that depend on no column."""
    return re.sub(r"\b(?:interval '|p_\w+|v_\w+)", "'", sql)
