"""How migration files are read: which section is taken."""

from __future__ import annotations

import pytest

from server.storage.migrate import up_section


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
