"""The command line `mailing`: its commands and its global options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mailing.channel import product_version
from mailing.cli.commands import (
    clients,
    demo,
    dispatchers,
    endpoints,
    health,
    ledger,
    mailings,
    messages,
    one_client,
    preview,
    report,
    schedules,
    segments,
    server,
    tail,
    top,
    watch,
    webhooks,
)
from mailing.cli.failures import STATUS_HELP
from mailing.cli.runner import new_app, run
from mailing.cli.session import AddressOption, JsonOption, Session, WideOption, command
from mailing.cli.terminal.output import print_json

_EPILOG = "\n\n".join(["Exit status:", *(f"{status.value}  {meaning}" for status, meaning in STATUS_HELP.items())])

app = new_app(name="mailing", epilog=_EPILOG)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mailing {product_version()}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    address: AddressOption = None,
    json: JsonOption = False,
    wide: WideOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Send campaigns through your HTTP gateway, inside each recipient's permitted hours.

    Start the service with `mailing serve`, or run the end-to-end demo with `mailing demo`.
    """
    session = Session()
    session.override(address, json, wide)
    ctx.obj = session


server.register(app)
health.register(app)
app.add_typer(clients.app, name="clients")
one_client.register(app, clients.app)
app.add_typer(segments.app, name="segments")
mailings.register(app)
schedules.register(app)
messages.register(app)
endpoints.register(app)
webhooks.register(app)
report.register(app)
preview.register(app)
watch.register(app)
tail.register(app)
dispatchers.register(app)
app.add_typer(ledger.app, name="ledger")
top.register(app)
demo.register(app)


@command(app, "version")
def show_version(session: Session) -> None:
    """Show the version of this program."""
    if session.json:
        print_json(session, {"version": product_version()})
    else:
        session.out.print(f"mailing {product_version()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `arguments` default to those of the process."""
    return run(app, "mailing", arguments)
