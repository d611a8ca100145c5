"""Checks command lines of documents and deployments against the programs, without running them."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Any

from typer.main import get_command

from mailing.cli.app import app as mailing
from server.cli import app as server

PROGRAMS = {"mailing": mailing, "mailing-server": server}
_PASSED_ON = ("serve",)
"""Commands of `mailing` whose words `mailing-server` reads."""


def understood(line: str | list[str]) -> str:
    """Return the name of a line's command; raise for an option or argument that its program does not know."""
    words = shlex.split(line, comments=True) if isinstance(line, str) else list(line)
    program = PurePosixPath(words.pop(0)).name
    command: Any = get_command(server if words[:1] == [*_PASSED_ON] else PROGRAMS[program])
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)
    return str(command.name)
