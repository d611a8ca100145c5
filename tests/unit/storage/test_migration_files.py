"""How migration files are read: sections and statements."""

from __future__ import annotations

import pytest

from server.storage.migrate import split_statements, up_section


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" ;; ; -- nothing\n/* at ; all */", []),
        ("a; b", ["a", "b"]),
        ("a;\nb;\n", ["a", "b"]),
        ("a -- one; comment\n; b", ["a -- one; comment", "b"]),
        ("a /* one /* inner; */ ; */; b", ["a /* one /* inner; */ ; */", "b"]),
        ("a /* it's */; b", ["a /* it's */", "b"]),
        ("SELECT ';', 'it''s;'; b", ["SELECT ';', 'it''s;'", "b"]),
        (r"SELECT E'\';'; b", [r"SELECT E'\';'", "b"]),
        (r"SELECT '\'; b", [r"SELECT '\'", "b"]),
        ('SELECT "a;""b"; b', ['SELECT "a;""b"', "b"]),
        ("SELECT '-- no comment;'; b", ["SELECT '-- no comment;'", "b"]),
        ("DO $$ BEGIN a; b; END $$; c", ["DO $$ BEGIN a; b; END $$", "c"]),
        ("DO $x$ a; $$ b; $$ $y$ $x$; c", ["DO $x$ a; $$ b; $$ $y$ $x$", "c"]),
        ("SELECT a$b; c$b", ["SELECT a$b", "c$b"]),
        ("PREPARE p AS SELECT $1; SELECT $2", ["PREPARE p AS SELECT $1", "SELECT $2"]),
        ("CREATE RULE r AS DO (a; b); c", ["CREATE RULE r AS DO (a; b)", "c"]),
        ("-- why\na; -- because\nb", ["-- why\na", "-- because\nb"]),
    ],
)
def test_a_script_is_split_where_postgres_would(script: str, statements: list[str]) -> None:
    assert list(split_statements(script)) == statements


def test_a_body_with_statements_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="BEGIN ATOMIC"):
        list(split_statements("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; b"))


def test_only_the_up_section_is_taken() -> None:
    assert up_section("-- about\n-- migrate:up\na;\n-- migrate:down\nb;\n").strip() == "a;"
    assert up_section("-- migrate:up\na;").strip() == "a;"


@pytest.mark.parametrize(
    "text",
    [
        "a;",
        "-- migrate:down\nb;",
        "-- migrate:down\nb;\n-- migrate:up\na;",
        "-- migrate:up\na;\n-- migrate:up\nb;",
        "-- migrate:up transaction:false\na;",
    ],
)
def test_unclear_sections_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="migrate:up"):
        up_section(text)
