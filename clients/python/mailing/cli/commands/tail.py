"""`mailing tail`: messages as they settle, one line each, until it is interrupted."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC
from typing import Annotated

import typer
from rich.text import Text

from mailing.cli.commands.options import read_values
from mailing.cli.commands.watch import PATIENCE_SECONDS
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, enum_name, moment, print_line
from mailing.v1.delivery_service_pb2 import MessageChange
from mailing.v1.message_pb2 import Message

_STYLES = {Message.STATUS_DELIVERED: "green", Message.STATUS_PENDING: "cyan", Message.STATUS_SKIPPED: "yellow"}


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    command(app, "tail")(tail)


def tail(
    session: Session,
    mailing_id: Annotated[int, typer.Option("--mailing-id", metavar="ID", help="Messages of this mailing only.")] = 0,
    status: Annotated[
        list[str],
        typer.Option("--status", metavar="STATUS", help="Changes to this status, as failed; repeat for alternatives."),
    ] = [],  # noqa: B006 - typer copies the default
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest change that is kept, not now.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="End after so many changes; 0: never.")] = 0,
) -> None:
    """Print what happens to messages, as it happens. With --json each line is a document."""
    statuses = read_values("--status", status, Message.Status.items(), "STATUS_")
    with session.connected() as client:
        changes = client.watch_messages(mailing_id, statuses, from_start=from_start, patience=PATIENCE_SECONDS)
        with closing(changes):
            for number, change in enumerate(changes, 1):
                _show(session, change)
                if number == limit:
                    return


def _show(session: Session, change: MessageChange) -> None:
    if session.json:
        print_line(session, document_of(change))
    elif session.out.is_terminal:
        session.out.print(_styled(change), soft_wrap=True)
    else:
        session.out.file.write(f"{moment(change.time)}  {_what(change)}\n")
        session.out.file.flush()


def _styled(change: MessageChange) -> Text:
    """Returns a line that fits into 80 columns."""
    clock = change.time.ToDatetime(UTC).astimezone().strftime("%H:%M:%S")
    return Text.assemble((f"{clock}  ", "dim"), (_what(change), _STYLES.get(change.status, "red")))


def _what(change: MessageChange) -> str:
    status = enum_name(change, "status").lower()
    ids = f"message {change.message_id}  mailing {change.mailing_id}  client {change.client_id}"
    return f"{status:<9}  {ids}"
