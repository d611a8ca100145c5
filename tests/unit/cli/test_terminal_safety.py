"""Stored text controls no terminal, in no form of output."""

from __future__ import annotations

import json

import pytest

from mailing.cli.failures import printable
from mailing.cli.terminal.output import json_text
from mailing.cli.terminal.tables import cell

HOSTILE = ["\x1b[2J", "\x9b31m", "\u202egnp.exe", "\u2066", "\x07", "\r", "\u200f", "\U000e0001"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_controls_a_terminal_is_escaped(text: str) -> None:
    """Fails for JSON when only what JSON itself forbids is escaped."""
    document = {"title": f"ok {text}", "sub": [text]}
    for shown in (printable(text), cell(text).plain, json_text(document)):
        assert shown.isprintable()
    assert json.loads(json_text(document)) == document
    assert json.loads(json_text(document, indent=2)) == document


def test_other_text_stays_as_it_is() -> None:
    assert json_text({"title": "Привет, «мир» 👋"}) == '{"title": "Привет, «мир» 👋"}'
