"""Named statements are found, complete, and used with exactly their parameters."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.storage.queries import Query, load_queries
from tests.support.project import ROOT

FOLDER = ROOT / "server" / "storage"
FILES = sorted(path.name for path in (FOLDER / "sql").glob("*.sql"))
QUERIES = {name: query for file in FILES for name, query in load_queries(file).items()}


def calls_of_bind() -> Iterator[tuple[str, ast.Call]]:
    """Yield every `...["NAME"].bind(...)` of the storage."""
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Subscript(slice=ast.Constant(value=str(name))), attr="bind")
                ):
                    yield name, node


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    strings = {
        node.value
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert sorted(set(QUERIES) - strings) == []
    assert sorted({name for name, _ in calls_of_bind()} - set(QUERIES)) == []


def test_statements_differ_in_their_names() -> None:
    texts = [path.read_text() for path in (FOLDER / "sql").rglob("*.sql")]
    names = [name for text in texts for name in re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)]
    assert sorted(names) == sorted(QUERIES)


def test_calls_name_the_parameters_of_their_statement() -> None:
    """Whatever else a call hands on as `**arguments` is checked when it is made."""
    calls = list(calls_of_bind())
    assert len(calls) > 90
    for name, call in calls:
        given, wanted = {keyword.arg for keyword in call.keywords}, set(QUERIES[name].names)
        assert given - {None} <= wanted, name
        assert None in given or given == wanted, name


def test_members_of_enums_are_named() -> None:
    columns = "status|state|reason|kind|breaker|audience_mode|semantics"
    bare = re.compile(rf"\b(?:{columns}) (?:(?:=|<>) |(?:NOT )?IN \()\d+.*")
    assert [found[0] for path in FOLDER.glob("sql/**/*.sql") for found in bare.finditer(path.read_text())] == []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "fables" / "sql").mkdir(parents=True)
    (tmp_path / "fables" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "fables" / "sql" / "a.sql"
    sys.modules.pop("fables", None)


def load(file: Path, text: str) -> dict[str, Query]:
    file.write_text(text)
    return load_queries("a.sql", "fables")


def test_fragments_are_included_and_are_no_statements(package: Path) -> None:
    fragments = "-- fragment: sum\n1 + {two}\n\n-- fragment: two\n2\n\n"
    found = load(package, f"-- name: one\nSELECT {{sum}};\n\n{fragments}-- name: no\nSELECT '{{}}';\n")
    assert {name: query.text for name, query in found.items()} == {"one": "SELECT 1 + 2", "no": "SELECT '{}'"}


def test_a_file_includes_a_shared_one_with_its_own_fragments(package: Path) -> None:
    (package.parent / "shared").mkdir()
    (package.parent / "shared" / "age.sql").write_text("-- What is old.\n-- name: old\nSELECT {number} FROM {table};\n")
    tables = "-- fragment: table\nt\n-- fragment: number\nn\n"
    found = load(package, f"-- A file.\n-- include: age\n\n{tables}-- name: one\nSELECT 1;\n")
    assert {name: query.text for name, query in found.items()} == {"one": "SELECT 1", "old": "SELECT n FROM t"}


def test_parameters_are_numbered_by_their_first_place(package: Path) -> None:
    query = load(package, "-- name: one\nSELECT $b::int, {more};\n-- fragment: more\n$a::int, $b\n")["one"]
    assert query.names == ("b", "a")
    assert query.bind(a=1, b=2) == ("SELECT $1::int, $2::int, $1", 2, 1)


def test_members_of_enums_become_their_numbers(package: Path) -> None:
    query = load(package, "-- name: one\nSELECT {Status.DELIVERED}, {Reason.REFUSED};\n")["one"]
    assert query.bind() == ("SELECT 2, 1",)


@pytest.mark.parametrize("arguments", [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_a_parameter_missing_or_too_many_is_refused(package: Path, arguments: dict[str, int]) -> None:
    query = load(package, "-- name: one\nSELECT $a::int + $b::int;\n")["one"]
    with pytest.raises(TypeError, match=r"one\(\)"):
        query.bind(**arguments)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n", "twice"),
        ("-- name: one\nSELECT {nothing};\n", "nothing"),
        ("-- name: one\nSELECT {Status.LOST};\n", r"Status\.LOST"),
        ("-- name: one\nSELECT {Weather.FINE};\n", r"Weather\.FINE"),
        ("-- name: one\nSELECT $1;\n", r"\$1"),
    ],
)
def test_a_file_with_a_mistake_is_refused(package: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(package, text)
