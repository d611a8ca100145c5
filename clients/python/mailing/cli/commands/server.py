"""`mailing serve`: the commands of the server, where that is installed on this machine.

The server is another distribution, `mailing-server`. It offers its commands as entry points
of the group `mailing.commands`: the name is the command's, the value a function that takes
the command's name with the words behind it and returns the exit status. Nothing of the
server is imported before such a command is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import typer

from mailing.cli.failures import CommandError
from mailing.cli.session import Session

GROUP = "mailing.commands"
"""The group of entry points whose functions run a command in place of this program."""

_INSTALL = "pip install 'mailing-server[embedded]'"
_FORMER = ("dispatcher", "migrate", "verify", "config", "tokens")
"""Commands of `mailing-server` that are understood here too, and not shown."""

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

Run = Callable[[Sequence[str]], int]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    _add(app, "serve", f"Start the service on this machine; needs {_INSTALL}.")
    for name in _FORMER:
        _add(app, name, f"The same as `mailing-server {name}`.", hidden=True)


def find(name: str) -> Run:
    """Return the function that runs the command; raise CommandError when no installed package has it."""
    for entry in entry_points(group=GROUP, name=name):
        run: Run = entry.load()
        return run
    raise CommandError(f"`mailing {name}` needs the server, which is not installed here: {_INSTALL}")


def _add(app: typer.Typer, name: str, description: str, *, hidden: bool = False) -> None:
    @app.command(name, help=description, hidden=hidden, add_help_option=False, context_settings=_PASS_ON)
    def pass_on(ctx: typer.Context) -> None:
        wanted_json = ["--json"] if ctx.ensure_object(Session).json else []
        if status := find(name)([name, *ctx.args, *wanted_json]):
            raise typer.Exit(status)
