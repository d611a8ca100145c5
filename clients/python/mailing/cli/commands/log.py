"""`mailing log`: what happened, for people: calls, the life of mailings, failures; past and live."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated

import typer

from mailing.cli.commands.options import read_values
from mailing.cli.commands.watch import PATIENCE_SECONDS
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import cell, document_of, enum_name, moment
from mailing.v1.log_pb2 import LogEntry


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    command(app, "log")(log)


def log(
    session: Session,
    mailing_id: Annotated[int, typer.Option("--mailing-id", metavar="ID", help="About this mailing only.")] = 0,
    message_id: Annotated[int, typer.Option("--message-id", metavar="ID", help="About this message only.")] = 0,
    client_id: Annotated[int, typer.Option("--client-id", metavar="ID", help="About this client only.")] = 0,
    level: Annotated[
        str | None, typer.Option("--level", metavar="LEVEL", help="At least this level: debug, info, warning or error.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="End after so many entries; 0: never.")] = 0,
) -> None:
    """Print the log, from the oldest entry that is kept. With --json each line is a document."""
    levels = read_values("--level", [level] if level else [], LogEntry.Level.items(), "LEVEL_")
    with session.connected() as client:
        entries = client.watch_log(mailing_id, message_id, client_id, *levels, follow=follow, patience=PATIENCE_SECONDS)
        with closing(entries):
            for number, entry in enumerate(entries, 1):
                line = json.dumps(document_of(entry), ensure_ascii=False) if session.json else _line(entry)
                session.out.file.write(f"{line}\n")
                session.out.file.flush()
                if number == limit:
                    return


def _line(entry: LogEntry) -> str:
    about = [f"{name} {value}" for name in ("mailing", "message", "client") if (value := getattr(entry, f"{name}_id"))]
    told = cell(" ".join(filter(None, (entry.text, f"({', '.join(about)})" if about else ""))))
    return f"{moment(entry.time)}  {enum_name(entry, 'level').lower():<7}  {entry.event:<18}  {told}"
