"""`mailing tail`: messages as they settle, one line each, until it is interrupted."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated

import typer

from mailing.cli.options import read_values
from mailing.cli.output import document_of, enum_name, moment
from mailing.cli.session import Session, command
from mailing.cli.watch import PATIENCE_SECONDS
from mailing.v1.delivery_service_pb2 import MessageChange
from mailing.v1.message_pb2 import Message


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
                session.out.file.write(f"{_document(change) if session.json else _line(change)}\n")
                session.out.file.flush()
                if number == limit:
                    return


def _document(change: MessageChange) -> str:
    return json.dumps(document_of(change))


def _line(change: MessageChange) -> str:
    status = enum_name(change, "status").lower()
    return (
        f"{moment(change.time)}  {status:<9}  message {change.message_id}"
        f"  mailing {change.mailing_id}  client {change.client_id}"
    )
