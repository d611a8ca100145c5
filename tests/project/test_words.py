"""The words of the project mean the same everywhere: numbers, states, dependencies, and nothing foreign."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from dispatcher.model.states import (
    STATE_TRANSITIONS,
    STATUS_TRANSITIONS,
    AudienceMode,
    ErrorClass,
    MailingState,
    Reason,
    Semantics,
    Status,
    Suspension,
)
from mailing.v1 import dispatch_pb2
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Attempt, Message
from server.domain.mailings import (
    CANCELLABLE,
    CHANGEABLE,
    DELETABLE,
    MAILING_FIELDS,
    PAUSABLE,
    RESUMABLE,
    RETRYABLE,
)
from server.storage.migrate import load_migrations
from server.storage.queries import load_queries
from tests.support.documents import page, section
from tests.support.project import ROOT

STATES = page("concepts")

ENUMS: list[tuple[type[IntEnum], Any, str]] = [
    (Status, Message.Status, "STATUS_"),
    (Reason, Message.Reason, "REASON_"),
    (ErrorClass, Attempt.ErrorClass, "ERROR_CLASS_"),
    (Suspension, dispatch_pb2.Suspension.Reason, "REASON_"),
    (MailingState, Mailing.State, "STATE_"),
    (AudienceMode, Mailing.AudienceMode, "AUDIENCE_MODE_"),
    (Semantics, Mailing.Semantics, "SEMANTICS_"),
]


NOT_USED_YET = set[str]()
"""Values of the contract that the service gives to nothing yet."""


@pytest.mark.parametrize(("python", "proto", "prefix"), ENUMS, ids=lambda value: getattr(value, "__name__", ""))
def test_numbers_are_those_of_the_protos(python: type[IntEnum], proto: Any, prefix: str) -> None:
    ours = {f"{prefix}{member.name}": member.value for member in python if member.value}
    assert ours == {name: number for name, number in proto.items() if number and name not in NOT_USED_YET}


def test_the_database_accepts_exactly_these_numbers() -> None:
    schema = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "server/storage/migrations").glob("*.sql"))
    )
    for column, enum in [
        ("status", Status),
        ("state", MailingState),
        ("audience_mode", AudienceMode),
        ("semantics", Semantics),
    ]:
        assert f"CHECK ({column} BETWEEN {min(enum)} AND {max(enum)})" in schema


@pytest.mark.parametrize(
    ("chart", "transitions"), [(0, STATE_TRANSITIONS), (1, STATUS_TRANSITIONS)], ids=["mailings", "messages"]
)
def test_a_chart_is_the_table_of_the_code(chart: int, transitions: dict[IntEnum, frozenset[IntEnum]]) -> None:
    drawn = re.findall(r"^```mermaid\n(.*?)^```", STATES, re.MULTILINE | re.DOTALL)[chart]
    arrows = re.findall(r"^ +([A-Z]+) --> ([A-Z]+)$", drawn, re.MULTILINE)
    assert sorted(arrows) == sorted((old.name, new.name) for old, after in transitions.items() for new in after)


def rows_of(heading: str) -> list[list[str]]:
    """Return the rows of the table in the page of states whose first row is this."""
    table = STATES.split(f"\n| {heading} |\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[1:]]


def test_the_table_of_moves_has_every_arrow_once() -> None:
    rows = rows_of("From | To | When")
    told = [
        (old, new) for olds, news, _ in rows if olds != "new" for old in olds.split(", ") for new in news.split(", ")
    ]
    assert sorted(told) == sorted((old.name, new.name) for old, after in STATE_TRANSITIONS.items() for new in after)


def test_the_table_of_verbs_is_the_code_s() -> None:
    sets = {"Pause": PAUSABLE, "Resume": RESUMABLE, "Cancel": CANCELLABLE, "Retry": RETRYABLE, "Delete": DELETABLE}
    rows = {verb: states for verb, states, _ in rows_of("Verb | Allowed in | Called again")}
    assert rows == {f"{verb}Mailing": ", ".join(s.name for s in sorted(states)) for verb, states in sets.items()}


def test_the_table_of_statuses_names_each_reason_once() -> None:
    rows = rows_of("Status | Meaning | Reasons")
    assert [row[0] for row in rows] == [status.name for status in Status]
    named = re.findall(r"`([A-Z_]+)`", " ".join(row[2] for row in rows))
    assert sorted(named) == sorted(reason.name for reason in Reason if reason)


def statements() -> Iterator[tuple[str, str]]:
    """Yield every statement of the service, and every function of the database, with its name."""
    for path in sorted((ROOT / "server/storage/sql").glob("*.sql")):
        yield from ((name, query.text) for name, query in load_queries(path.name).items())
    for one in load_migrations():
        yield from re.findall(r"CREATE FUNCTION (\w+)\(.*?AS \$\$(.*?)\$\$;", one.script, re.DOTALL)


@pytest.mark.parametrize(("table", "column"), [("messages", "status"), ("mailings", "state")])
def test_every_statement_that_moves_something_looks_where_it_comes_from(table: str, column: str) -> None:
    """Fails when `AND state = ...` is taken out of reopen_mailing, or `m.status = ...` out of settle."""
    moving = {}
    for name, text in statements():
        for update in re.findall(rf"UPDATE {table}\b.*?(?=RETURNING|\n\)|\Z)", text, re.DOTALL):
            if re.search(rf"\b{column} =", update):
                moving[name] = re.search(rf"(WHERE|AND|WHEN|\n)\s*(\w\.)?{column} (=|IN) (ANY|\(?\d)", update)
    assert len(moving) >= 3
    assert [name for name, guard in moving.items() if not guard] == []


def test_the_table_of_changeable_fields_is_the_code_s() -> None:
    for state, fields in CHANGEABLE.items():
        row = f"| {state.name} | {', '.join(name for name in MAILING_FIELDS if name in fields)} |"
        assert row in STATES


def test_every_dependency_says_why_it_is_there() -> None:
    project, sdk = (
        tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        for folder in (ROOT, ROOT / "clients" / "python")
    )
    for heading, wanted in [
        ("## The SDK: `mailing`", sdk["project"]["dependencies"]),
        ("## The server: `mailing-server`", project["project"]["dependencies"]),
        ("## With the extra `console`", project["project"]["optional-dependencies"]["console"]),
        ("## With the extra `embedded`", project["project"]["optional-dependencies"]["embedded"]),
        ("## With the extra `otel`", project["project"]["optional-dependencies"]["otel"]),
        ("## To develop", project["dependency-groups"]["dev"]),
    ]:
        text = section(page("dependencies"), heading)
        explained = re.findall(r"^\| ([\w\[\]-]+) \| \S", text.split("|---|---|")[1], re.MULTILINE)
        assert sorted(explained) == sorted(re.split(r"[><=; ]", name)[0] for name in wanted)


FOREIGN = re.compile(
    "|".join(
        [
            # Written in two halves, so that this file does not find itself.
            "py" + r"pi\.org",
            "python" + "hosted",
            "[/ (]" + r"work/(main|shared)",
            "shared" + "/(DESIGN|API|FACTS|STYLE)",
            r"\b[Ii]ssue " + r"#?\d",
            "/ro" + "ot/|/ho" + "me/",
            r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X)\b",
        ]
    )
)
NOT_OURS = {".git", ".venv", ".bench-venv", "node_modules", "__pycache__", "build", "dist", "target"}
TEXTS = {
    ".cfg", ".csv", ".go", ".ini", ".java", ".js", ".json", ".lock", ".lua", ".md", ".proto", ".py", ".pyi", ".rs",
    ".sh", ".sql", ".svg", ".toml", ".ts", ".txt", ".yaml", ".yml",
}  # fmt: skip


def project_files() -> list[Path]:
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not NOT_OURS.intersection(path.relative_to(ROOT).parts)
        and not any(part.endswith("_cache") or part == ".hypothesis" for part in path.relative_to(ROOT).parts)
        and (path.suffix in TEXTS or path.name in ("Makefile", "Dockerfile", "LICENSE", "run"))
    ]


def test_the_project_speaks_of_itself_only() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FOREIGN.search(line)
    ]
    assert found == []
