"""`mailing serve`, `dispatcher`, `migrate` and `config`: the commands that run the service itself.

The server is imported when one of them is called and not before: all other commands need
nothing but the API, wherever it is. Options win over the environment, the environment over the file.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from mailing.cli.commands.options import read_pairs
from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import cell, new_table, print_json

_PANEL = "Settings"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from, beside the environment."""

    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML file of settings; else MAILING_CONFIG_FILE.", rich_help_panel=_PANEL
        ),
    ] = None
    values: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="NAME=VALUE", help="One setting, such as pool_size=20; repeatable.", rich_help_panel=_PANEL
        ),
    ] = field(default_factory=list)


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    command(app, "serve")(serve)
    command(app, "dispatcher")(dispatch)
    command(app, "migrate")(migrate)
    command(app, "config")(show_settings)


def serve(
    session: Session,
    sources: Sources,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where to serve; port 0 takes a free one. Else MAILING_LISTEN, else 127.0.0.1:50051.",
        ),
    ] = None,
    dispatchers: Annotated[
        int | None,
        typer.Option("--dispatchers", metavar="N", help="Dispatch in N processes beside the server; 0: inside of it."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let in whoever reaches the address, without authentication.")
    ] = False,
) -> None:
    """Start the service; it runs until Ctrl-C or SIGTERM.

    `mailing config` shows all settings. Without MAILING_DSN it runs a Postgres of its own.
    """
    _end(_server("run", sources, listen=listen, dispatchers=dispatchers, insecure=insecure or None))


def dispatch(session: Session, sources: Sources) -> None:
    """Run a dispatcher alone, for a service on the same database."""
    _end(_server("run_dispatcher", sources))


def migrate(session: Session, sources: Sources) -> None:
    """Bring the database to the schema of this release; the service does so itself when it starts."""
    out = io.StringIO()
    with redirect_stdout(out):
        status = _server("run_migrations", sources)
    applied = out.getvalue().split()
    if session.json:
        print_json(session, {"applied": applied})
    elif not status:
        session.out.print(f"Applied {', '.join(applied)}." if applied else "The schema is up to date.")
    _end(status)


def show_settings(session: Session, sources: Sources) -> None:
    """Show the settings that would be in force here, and where each comes from; secrets are masked."""
    rows = import_module("server.config").rows_in_force(_loaded(sources))
    if session.json:
        print_json(session, {"settings": rows})
        return
    table = new_table("Setting", "Value", "From")
    for row in rows:
        value = "" if row["value"] is None else str(row["value"])
        table.add_row(cell(row["name"]), cell(value), cell("" if row["from"] == "default" else row["from"]))
    session.out.print(table)


def _loaded(sources: Sources, **options: Any) -> Any:
    """Returns the settings and their places; what cannot be used ends the command."""
    config = import_module("server.config")
    given = read_pairs("--set", sources.values) | {name: one for name, one in options.items() if one is not None}
    try:
        return config.load(sources.config, given)
    except config.ConfigError as error:
        raise CommandError(" ".join(error.problems), ExitStatus.BAD_INPUT) from None


def _server(function: str, sources: Sources, **options: Any) -> int:
    """Calls a function of the server's main module with the settings; returns its exit status."""
    run: Callable[[Any], int] = getattr(import_module("server.main"), function)
    return run(_loaded(sources, **options).settings)


def _end(status: int) -> None:
    if status:
        raise typer.Exit(status)
