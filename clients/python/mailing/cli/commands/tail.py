"""`mailing tail` and `mailing log`: one line for each change of a message, or for each event, live."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC
from typing import Annotated

import typer
from rich.text import Text

from mailing.cli.commands.options import read_values
from mailing.cli.commands.watch import PATIENCE_SECONDS
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, print_line
from mailing.cli.terminal.tables import cell, enum_name, moment
from mailing.v1.delivery_service_pb2 import MessageChange
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.message_pb2 import Message

_STYLES = {Message.STATUS_DELIVERED: "green", Message.STATUS_PENDING: "cyan", Message.STATUS_SKIPPED: "yellow"}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app, "tail")(tail)
    command(app, "log")(log)


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
    """Print changes of messages as they happen. With --json each line is a document."""
    statuses = read_values("--status", status, Message.Status.items(), "STATUS_")
    with session.connected() as client:
        changes = client.watch_messages(mailing_id, statuses, from_start=from_start, patience=PATIENCE_SECONDS)
        with closing(changes):
            for number, change in enumerate(changes, 1):
                _print_change(session, change)
                if number == limit:
                    return


def log(
    session: Session,
    mailing_id: Annotated[int, typer.Option("--mailing-id", metavar="ID", help="About this mailing only.")] = 0,
    message_id: Annotated[int, typer.Option("--message-id", metavar="ID", help="About this message only.")] = 0,
    client_id: Annotated[int, typer.Option("--client-id", metavar="ID", help="About this client only.")] = 0,
    level: Annotated[
        str | None, typer.Option("--level", metavar="LEVEL", help="Minimum level: debug, info, warning or error.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new events as they come.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="End after so many events; 0: never.")] = 0,
) -> None:
    """Print the event log, from the oldest event that is kept. With --json each line is a document."""
    levels = read_values("--level", [level] if level else [], LogEntry.Level.items(), "LEVEL_")
    with session.connected() as client:
        entries = client.watch_log(mailing_id, message_id, client_id, *levels, follow=follow, patience=PATIENCE_SECONDS)
        with closing(entries):
            for number, entry in enumerate(entries, 1):
                _print_entry(session, entry)
                if number == limit:
                    return


def _print_change(session: Session, change: MessageChange) -> None:
    if session.json:
        print_line(session, document_of(change))
    elif session.out.is_terminal:
        session.out.print(_styled(change), soft_wrap=True)
    else:
        session.out.file.write(f"{moment(change.time)}  {_change_text(change)}\n")
        session.out.file.flush()


def _styled(change: MessageChange) -> Text:
    """Return a line that fits into 80 columns."""
    clock = change.time.ToDatetime(UTC).astimezone().strftime("%H:%M:%S")
    return Text.assemble((f"{clock}  ", "dim"), (_change_text(change), _STYLES.get(change.status, "red")))


def _change_text(change: MessageChange) -> str:
    status = enum_name(change, "status").lower()
    ids = f"message {change.message_id}  mailing {change.mailing_id}  client {change.client_id}"
    return f"{status:<9}  {ids}"


def _print_entry(session: Session, entry: LogEntry) -> None:
    if session.json:
        print_line(session, document_of(entry))
    else:
        session.out.file.write(f"{_entry_text(entry)}\n")
        session.out.file.flush()


def _entry_text(entry: LogEntry) -> str:
    about = [f"{name} {value}" for name in ("mailing", "message", "client") if (value := getattr(entry, f"{name}_id"))]
    text = cell(" ".join(filter(None, (entry.text, f"({', '.join(about)})" if about else ""))))
    return f"{moment(entry.time)}  {enum_name(entry, 'level').lower():<7}  {entry.event:<18}  {text}"
