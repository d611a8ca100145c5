"""Named statements are found, complete, and used."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.storage.queries import load_queries
from tests.support.project import ROOT

FOLDER = ROOT / "server" / "storage"
FILES = [path.name for path in (FOLDER / "sql").glob("*.sql")]


@pytest.mark.parametrize("file", FILES)
def test_every_statement_is_used(file: str) -> None:
    code = "".join(path.read_text() for path in FOLDER.rglob("*.py"))
    for name in load_queries(file):
        assert re.search(rf"[\"']{name}[\"']", code), f"{file}: nobody uses {name}"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "fables" / "sql").mkdir(parents=True)
    (tmp_path / "fables" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "fables" / "sql" / "a.sql"
    sys.modules.pop("fables", None)


def test_fragments_are_included_and_are_no_statements(package: Path) -> None:
    package.write_text("-- name: one\nSELECT {what};\n\n-- fragment: what\n1 + 1\n\n-- name: two\nSELECT '{}';\n")
    assert load_queries("a.sql", "fables") == {"one": "SELECT 1 + 1", "two": "SELECT '{}'"}


def test_a_name_twice_and_a_missing_fragment_are_refused(package: Path) -> None:
    package.write_text("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")
    with pytest.raises(ValueError, match="twice"):
        load_queries("a.sql", "fables")
    package.write_text("-- name: one\nSELECT {nothing};\n")
    with pytest.raises(ValueError, match="nothing"):
        load_queries("a.sql", "fables")
