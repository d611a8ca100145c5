"""`mailing clients`: export, list and add."""

from __future__ import annotations

from typing import Annotated

import typer

from mailing import new_client
from mailing.cli.commands.client_import import import_file
from mailing.cli.commands.options import (
    Attributes,
    ClientIds,
    FilterText,
    Limit,
    OfCountry,
    OperatorCodes,
    Tags,
    Timezones,
    only_one,
    page_size,
    read_filter,
    read_optional,
    read_pairs,
    read_phone,
    read_window,
)
from mailing.cli.files import STANDARD_STREAM, output_file
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.client_view import CLIENT_COLUMNS, client_facts, client_row
from mailing.cli.terminal.output import print_list, print_message
from mailing.client_csv import write_clients

app = typer.Typer(cls=SuggestingGroup, no_args_is_help=True, help="Manage clients, the recipients of mailings.")


command(app, "import")(import_file)


@command(app, "export")
def export(
    session: Session,
    tag: Tags = [],  # noqa: B006 - typer copies the default
    operator_code: OperatorCodes = [],  # noqa: B006
    timezone: Timezones = [],  # noqa: B006
    attribute: Attributes = [],  # noqa: B006
    client_id: ClientIds = [],  # noqa: B006
    filter_text: FilterText = "",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE.csv", help="Output file; - is standard output.")
    ] = STANDARD_STREAM,
) -> None:
    """Write the matching clients as CSV, in the format that import reads. With --json: one document."""
    chosen = read_filter(tag, operator_code, timezone, attribute, client_id)
    only_one(filter_text, chosen)
    with session.connected() as mailing:
        clients = mailing.export_clients(chosen, filter_text=filter_text)
        if session.json:
            print_list(session, "clients", clients, 0, (), lambda _: ())
        else:
            with output_file(output) as out:
                write_clients(clients, out)


@command(app, "list")
def list_clients(
    session: Session,
    tag: Tags = [],  # noqa: B006
    operator_code: OperatorCodes = [],  # noqa: B006
    timezone: Timezones = [],  # noqa: B006
    attribute: Attributes = [],  # noqa: B006
    client_id: ClientIds = [],  # noqa: B006
    filter_text: FilterText = "",
    receiving_now: Annotated[
        bool, typer.Option("--receiving-now", help="Only clients inside their receive window now.")
    ] = False,
    limit: Limit = 50,
) -> None:
    """List clients in the order of their ids."""
    chosen = read_filter(tag, operator_code, timezone, attribute, client_id)
    only_one(filter_text, chosen)
    with session.connected() as mailing:
        clients = mailing.list_clients(
            chosen, filter_text=filter_text, receiving_now=receiving_now, page_size=page_size(limit)
        )
        print_list(session, "clients", clients, limit, CLIENT_COLUMNS, client_row)


@command(app, "add")
def add(
    session: Session,
    phone: Annotated[str, typer.Argument(help="With the country code, as +7 (916) 123-45-67.")],
    timezone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="IANA name, as Europe/Moscow.")],
    operator_code: Annotated[str, typer.Option("--operator-code", metavar="CODE", help="Three digits.")] = "",
    tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="A label to choose clients by.")] = "",
    window: Annotated[
        str | None,
        typer.Option(
            "--window", metavar="HH:MM-HH:MM", help="When messages may be sent, in the client's time zone; else always."
        ),
    ] = None,
    attribute: Annotated[list[str], typer.Option("--attribute", metavar="NAME=VALUE", help="Repeat for several.")] = [],  # noqa: B006
    opted_out: Annotated[bool, typer.Option("--opted-out", help="Client has opted out: never send.")] = False,
    country: OfCountry = None,
) -> None:
    """Add one client."""
    client = new_client(
        read_phone("PHONE", phone, country),
        timezone,
        operator_code=operator_code,
        tag=tag,
        window=read_optional("--window", read_window, window),
        attributes=read_pairs("--attribute", attribute),
        opted_out=opted_out,
    )
    with session.connected() as mailing:
        stored = mailing.create_client(client)
    print_message(session, stored, lambda: client_facts(stored))
