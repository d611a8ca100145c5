"""`mailing serve`, `mailing dispatch` and `mailing migrate`: the commands that run the service itself.

The server is imported when one of them is called and not before: all other commands need
nothing but the API, wherever it is. Settings come from the environment; options win.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from typing import Annotated, Any

import typer

from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.output import print_json
from mailing.cli.session import Session, command


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    command(app, "serve")(serve)
    command(app, "dispatch")(dispatch)
    command(app, "migrate")(migrate)


def serve(
    session: Session,
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

    All settings come from the environment. Without MAILING_DSN it runs a Postgres of its own.
    """
    _end(_server("run", listen=listen, dispatchers=dispatchers, insecure=insecure or None))


def dispatch(session: Session) -> None:
    """Run a dispatcher alone, for a service on the same database."""
    _end(_server("run_dispatcher"))


def migrate(session: Session) -> None:
    """Bring the database to the schema of this release; the service does so itself when it starts."""
    out = io.StringIO()
    with redirect_stdout(out):
        status = _server("run_migrations")
    applied = out.getvalue().split()
    if session.json:
        print_json(session, {"applied": applied})
    elif not status:
        session.out.print(f"Applied {', '.join(applied)}." if applied else "The schema is up to date.")
    _end(status)


def _server(function: str, **overrides: Any) -> int:
    """Calls a function of the server's main module with the settings; returns its exit status."""
    config = import_module("server.config")
    try:
        settings = config.load_settings(**{name: value for name, value in overrides.items() if value is not None})
    except config.ConfigError as error:
        raise CommandError(" ".join(error.problems), ExitStatus.BAD_INPUT) from None
    run: Callable[[Any], int] = getattr(import_module("server.main"), function)
    return run(settings)


def _end(status: int) -> None:
    if status:
        raise typer.Exit(status)
