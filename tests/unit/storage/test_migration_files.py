"""How migration files are read: which section is taken."""

from __future__ import annotations

import re

import pytest

from server.storage.migrate import load_migrations, up_section


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


def test_migrations_leave_what_the_release_before_uses() -> None:
    """Fails when a migration takes something away, unless a line says since which release nothing uses it.

    What is put together as text is about partitions of tables, which no release names.
    """
    takes_away = re.compile(r"\b(DROP (TABLE|COLUMN|SEQUENCE)|RENAME|ALTER COLUMN \w+ (SET DATA )?TYPE)\b")
    for migration in load_migrations():
        script = re.sub(r"EXECUTE format.*", "", migration.script)
        if migration.version > "0005" and takes_away.search(script):
            assert re.search(r"^-- unused since \d+\.\d+", migration.script, re.MULTILINE), migration.file
