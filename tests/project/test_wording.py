"""What people read is in the field's words: pages, help, settings and the protos' comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from mailing.cli.app import app as mailing
from server.cli import app as server
from server.config.settings import Settings
from tests.support.documents import DOCUMENTS
from tests.support.project import ROOT

PECULIAR = re.compile(
    r"\b(whoever|told|heed|hungry|takes its leave|gets on|says (?:whether|which|that)|it is none|gone away|went away"
    r"|ends well|ended well|come of age|is it well|nobody takes|what one sees|looks? for work|a look for)\b",
    re.IGNORECASE,
)
"""Turns of phrase at which readers stopped."""

QUOTED = {"CHANGELOG.md"}
"""History, which is not written anew."""


def help_texts(command: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield what `--help` shows, of a command and all below it."""
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for name, below in getattr(command, "commands", {}).items():
        yield from help_texts(below, f"{path} {name}")


def texts() -> dict[str, str]:
    found = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
    found |= {
        str(path.relative_to(ROOT)): comments(path.read_text()) for path in ROOT.glob("protos/mailing/v1/*.proto")
    }
    found |= dict([*help_texts(get_command(mailing), "mailing"), *help_texts(get_command(server), "mailing-server")])
    return found | {name: field.description or "" for name, field in Settings.model_fields.items()}


def comments(proto: str) -> str:
    return " ".join(
        line.strip().removeprefix("//").strip() for line in proto.splitlines() if line.strip().startswith("//")
    )


TEXTS = {name: text for name, text in texts().items() if name not in QUOTED}


def test_nothing_reads_oddly() -> None:
    found = [(name, match[0]) for name, text in TEXTS.items() for match in PECULIAR.finditer(" ".join(text.split()))]
    assert found == []


@pytest.mark.parametrize("text", ["Whoever calls", "A watcher is told of it", "It says whether it works"])
def test_an_odd_text_is_noticed(text: str) -> None:
    assert PECULIAR.search(text)


def test_texts_of_every_kind_are_read() -> None:
    """Fails when a kind of text is looked for where there is none any more."""
    for name in (
        "README.md",
        "docs/clients.md",
        "protos/mailing/v1/client.proto",
        "mailing clients import",
        "pool_size",
    ):
        assert TEXTS[name]
