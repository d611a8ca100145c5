"""The operators' pages are complete: every error reason has a cure, every command and setting exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from mailing.cli.app import app
from mailing.v1.error_pb2 import ErrorReason
from server.api.interceptors.errors import ANSWERS
from server.config.settings import Settings, is_secret, variables_of
from server.config.sources import FILE_VARIABLE
from tests.project.test_readme import check_call, shell_lines
from tests.support.project import ROOT

DOCS = ROOT / "docs"
PAGES = [DOCS / f"{name}.md" for name in ("operating", "configuration", "upgrading", "backup", "troubleshooting")]
TROUBLES = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=\n### |\Z)", TROUBLES, re.MULTILINE | re.DOTALL))


def test_every_error_reason_has_its_status_cause_and_cure() -> None:
    """Fails for a reason that is added to the protos alone."""
    assert sorted(SECTIONS) == sorted(
        name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number
    )
    assert [name for name, text in SECTIONS.items() if "**Cause:** " not in text or "**Cure:** " not in text] == []


def test_the_status_of_a_reason_is_the_one_that_is_sent() -> None:
    for answer in ANSWERS.values():
        if answer.reason:
            assert (
                answer.code.name
                in SECTIONS[ErrorReason.Name(answer.reason).removeprefix("ERROR_REASON_")].split("**")[0]
            )


COMMANDS = [(page.stem, line) for page in PAGES for line in shell_lines(page.read_text(encoding="utf-8"), "mailing")]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_line_is_understood(page: str, line: str) -> None:
    command: Any = get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


CALLS = [line for page in PAGES for line in shell_lines(page.read_text(encoding="utf-8"), "grpcurl")]


@pytest.mark.parametrize("line", CALLS)
def test_a_call_by_grpcurl_parses_into_its_request(line: str) -> None:
    check_call(re.sub(r" -v| -H '[^']*'", "", line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_settings_that_a_page_names_exist(page: Path) -> None:
    known = {variable for name in Settings.model_fields for variable in variables_of(name)}
    known |= {f"{variables_of(name)[0]}_FILE" for name in Settings.model_fields if is_secret(name)}
    known |= {FILE_VARIABLE, "MAILING_ADDRESS", "MAILING_TOKEN", *SECTIONS}
    named = re.findall(r"\bMAILING_[A-Z_]+[A-Z]\b(?!…)", page.read_text(encoding="utf-8"))
    assert sorted({*named} - known) == []
