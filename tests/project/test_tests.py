"""The tests keep their own rules: what they share, how they wait, what they look at, how they are called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.project import ROOT

TESTS = ROOT / "tests"
FOREIGN = {"asyncio", "handle"}
"""Objects of the standard library of which the simulation's event loop is made."""

_WAITS = re.compile(r"(until|wait|await)(_|$)|eventually")


@cache
def modules() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(TESTS.rglob("*.py"))
    }


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def functions(tree: ast.AST) -> Iterator[str]:
    """Yield the names of all functions that are not methods."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not isinstance(tree, ast.ClassDef):
            yield node.name
        yield from functions(node)


def private(node: ast.Attribute) -> bool:
    """Return whether something reads the private state of an object that is not its own."""
    owner = node.value.id if isinstance(node.value, ast.Name) else ""
    public = not node.attr.startswith("_") or node.attr.startswith("__") or node.attr in ("_replace", "_asdict")
    return not public and owner not in {"self", "cls", *FOREIGN}


def test_no_test_module_imports_another() -> None:
    """What two modules need stands in tests/support, or in a module beside them."""
    found = [
        (path, name)
        for path, tree in modules().items()
        for name in imported(tree)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split(".")[:-1])
    ]
    assert found == []


def test_waiting_is_written_once() -> None:
    """Fails for another helper that polls; streams and endpoints, which tell, have methods."""
    found = [
        (path, name)
        for path, tree in modules().items()
        for name in functions(tree)
        if _WAITS.match(name) and Path(path).parent != TESTS.relative_to(ROOT) / "support"
    ]
    assert found == []


def test_private_state_is_left_alone() -> None:
    found = [
        (path, node.lineno, node.attr)
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and private(node)
    ]
    assert found == []


def test_names_are_sentences_of_less_than_70_characters() -> None:
    names = [
        node.name
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [name for name in names if len(name) >= 70] == []


def test_no_code_runs_between_fork_and_exec() -> None:
    """The fork handlers of gRPC would run as well and may abort the child; the service starts Postgres before gRPC."""
    trees = {
        str(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in (ROOT / "clients/python/mailing").rglob("*.py")
    }
    found = [
        path
        for path, tree in {**modules(), **trees}.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "preexec_fn"
    ]
    assert found == []
