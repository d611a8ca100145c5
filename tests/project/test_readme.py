"""The README and the pages are true: commands, calls, targets, links and settings exist as they are written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, json_format

from docs.settings import PAGE, with_settings
from mailing import MailingClient
from mailing.channel import product_version
from tests.support.command_lines import PROGRAMS, understood
from tests.support.documents import (
    DOCUMENTS,
    anchors,
    blocks,
    check_call,
    page,
    section,
    shell_lines,
)
from tests.support.project import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
CALLS = [line for line in shell_lines(page("clients"), "grpcurl") if "/" in line.split("localhost:50051")[-1]]
GRPCURL = [
    (name, line) for name, text in TEXTS.items() for line in shell_lines(text, "grpcurl") if "/" in line.split()[-1]
]
COMMANDS = [(name, line) for name, text in TEXTS.items() for program in PROGRAMS for line in shell_lines(text, program)]


@pytest.mark.parametrize(("name", "line"), GRPCURL)
def test_a_grpcurl_line_parses_into_the_request_of_its_method(name: str, line: str) -> None:
    check_call(re.sub(r" -v| -H '[^']*'", "", line))


def test_grpcurl_lines_show_every_kind_of_call() -> None:
    assert {check_call(line) for line in CALLS} == {"unary", "client stream", "server stream"}
    assert max(map(len, CALLS)) < 260


@pytest.mark.parametrize(
    "line",
    [
        "grpcurl -plaintext -d '{\"nonsense\": 1}' localhost:50051 mailing.v1.ClientService/GetClient",
        "grpcurl -plaintext localhost:50051 mailing.v1.ClientService/Nonsense",
    ],
)
def test_a_wrong_grpcurl_line_is_noticed(line: str) -> None:
    with pytest.raises((json_format.ParseError, KeyError)):
        check_call(line)


def test_described_symbols_exist() -> None:
    described = [line for line in shell_lines(page("clients"), "grpcurl") if " describe " in line]
    assert described
    for line in described:
        assert descriptor_pool.Default().FindMessageTypeByName(line.split()[-1])


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, text in TEXTS.items():
        for target in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.MULTILINE):
            assert target in targets or (target.startswith("bench-") and "bench-%" in targets), f"{name}: {target}"


def test_every_benchmark_in_the_documents_exists() -> None:
    from bench.__main__ import MODULES

    text = section(page("performance"), "## The benchmarks")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(MODULES)


def test_the_readme_names_the_version() -> None:
    assert f"Version {product_version()}, " in README


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_a_command_line_is_understood(name: str, line: str) -> None:
    understood(line.partition("||")[0])


def test_a_wrong_command_line_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        understood("mailing top --nonsense")


def test_the_settings_table_is_the_code_s() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_settings(text) == text, "run `make generate`"


EXAMPLES = [(name, block) for name, text in TEXTS.items() for block in blocks(text, "python")]


@pytest.mark.parametrize(("name", "block"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_a_python_example_uses_what_the_sdk_has(name: str, block: str) -> None:
    tree = ast.parse(block)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            exec(compile(ast.Module([node], []), name, "exec"), {})
    called = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "id", "") in ("service", "client", "MailingClient")
    }
    assert called
    assert [one for one in called if not hasattr(MailingClient, one)] == []


def test_the_readme_s_example_has_at_most_ten_lines() -> None:
    (example,) = blocks(README, "python")
    assert len(example.splitlines()) <= 10


@pytest.mark.parametrize(
    "words", ["Endpoint at ", ", with its own Postgres", " clients imported in ", "Records and endpoint agree: "]
)
def test_the_readme_quotes_what_the_demo_prints(words: str) -> None:
    source = ROOT / "clients/python/mailing/cli/commands/demo.py"
    assert words in README
    assert words in source.read_text(encoding="utf-8")


def test_the_readme_s_figures_are_those_of_the_results() -> None:
    """Fails for a number of the table of features that no page has measured."""
    elsewhere = "\n".join(text for name, text in TEXTS.items() if name != "README.md")
    table = section(README, "## Features").split("|---|---|")[1].split("\n\n")[0]
    measured = [row.split("|")[2] for row in table.strip().splitlines()]
    numbers = [one for cell in measured for one in re.findall(r"\d[\d,.]*\d", cell)]
    assert len(measured) > 10
    assert [one for one in numbers if not re.search(rf"(?<![\d,.]){re.escape(one)}(?!\d)", elsewhere)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.parent.name + "/" + path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            document = path.parent / name if name else path
            assert document.exists(), target
            assert not anchor or anchor in anchors(document), target


def test_every_page_is_linked_from_the_readme() -> None:
    assert [path.name for path in DOCUMENTS[1:] if f"({path.relative_to(ROOT)}" not in README] == []


def test_the_picture_loads_nothing_from_elsewhere() -> None:
    """Fails when fonts are left in that a reader's program would fetch; `make picture` draws it."""
    picture = (ROOT / "docs" / "top.svg").read_text(encoding="utf-8")
    assert "mailing" in picture
    assert "://" not in picture.replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")
