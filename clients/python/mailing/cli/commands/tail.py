"""`mailing tail` and `mailing log`: one line for each change of a message, or for each event, live."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC
from typing import Annotated

import grpc
import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from mailing import MailingClient, MailingError
from mailing.cli.commands.options import read_values
from mailing.cli.commands.watch import PATIENCE_SECONDS
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, print_cut, print_line
from mailing.cli.terminal.tables import cell, enum_name, moment, short_moment
from mailing.cli.terminal.words import outcome, reason_words, words_of
from mailing.v1.delivery_service_pb2 import MessageChange
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.message_pb2 import Message

LOOKUPS_PER_SECOND = 25
"""So many lines in a second have phone and reason, which take a call each."""

MOST_ALIKE = 3
"""So many entries of the log that are alike are shown one by one."""

_LEVEL_STYLES = {LogEntry.LEVEL_ERROR: "red", LogEntry.LEVEL_WARNING: "yellow", LogEntry.LEVEL_DEBUG: "dim"}
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
        messages = _Messages(client)
        with closing(changes):
            for number, change in enumerate(changes, 1):
                _print_change(session, change, None if session.json else messages.of(change))
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
        shown = _Entries(session)
        with closing(entries):
            try:
                for number, entry in enumerate(entries, 1):
                    shown.print(entry)
                    if number == limit:
                        return
            finally:
                shown.end()


def _print_change(session: Session, change: MessageChange, message: Message | None) -> None:
    if session.json:
        print_line(session, document_of(change))
    elif session.out.is_terminal:
        print_cut(session, _styled(change, message))
    else:
        found = (f"{moment(change.time)}  {_change_text(change)}", *_known(message))
        session.out.file.write("  ".join(filter(None, found)) + "\n")
        session.out.file.flush()


def _styled(change: MessageChange, message: Message | None) -> Text:
    """Return a line for a screen: when, to whom, what became of it."""
    style = _STYLES.get(change.status, "red")
    if message is None:
        return Text.assemble((f"{_clock(change.time)}  ", "dim"), (_change_text(change), style))
    phone, _ = _known(message)
    became = cell(outcome(message)).plain
    return Text.assemble(
        (f"{_clock(change.time)}  ", "dim"),
        (f"{phone:<15}  {became:<32}", style),
        (f"  message {change.message_id}", "dim"),
    )


def _known(message: Message | None) -> tuple[str, str]:
    """Return phone and reason in words, where the caller may see them."""
    if message is None:
        return "", ""
    return cell(message.phone).plain, reason_words(enum_name(message, "reason"))


def _change_text(change: MessageChange) -> str:
    status = enum_name(change, "status").lower()
    ids = f"message {change.message_id}  mailing {change.mailing_id}  client {change.client_id}"
    return f"{status:<9}  {ids}"


def _clock(at: Timestamp) -> str:
    return at.ToDatetime(UTC).astimezone().strftime("%H:%M:%S")


class _Messages:
    """Looks up the messages of changes, as many in a second as a person reads at most."""

    def __init__(self, client: MailingClient) -> None:
        self._client = client
        self._allowed = True
        self._second, self._asked = 0, 0

    def of(self, change: MessageChange) -> Message | None:
        """Return the message as it is now; None when there are too many, or the caller may not read it."""
        second = int(time.monotonic())
        self._second, self._asked = second, (self._asked if second == self._second else 0) + 1
        if not self._allowed or self._asked > LOOKUPS_PER_SECOND:
            return None
        try:
            message = self._client.get_message(change.message_id)
        except MailingError as error:
            self._allowed = error.code not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)
            return None
        return message if message.status == change.status else None


class _Entries:
    """Prints entries of the log; on a screen those that are alike are counted after the first few."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kind: tuple[object, ...] = ()
        self._alike = 0

    def print(self, entry: LogEntry) -> None:
        """Print an entry, or count it."""
        session = self._session
        if session.json:
            print_line(session, document_of(entry))
        elif session.wide or not session.out.is_terminal:
            session.out.file.write(f"{_entry_text(entry)}\n")
            session.out.file.flush()
        else:
            self._print_grouped(entry)

    def _print_grouped(self, entry: LogEntry) -> None:
        kind = (entry.event, entry.mailing_id, entry.text)
        if kind != self._kind:
            self.end()
            self._kind, self._alike = kind, 0
        self._alike += 1
        if self._alike <= MOST_ALIKE:
            print_cut(self._session, _entry_line(entry))
        else:
            self._session.out.file.write(f"\r          … {self._alike - MOST_ALIKE:,} more like it")
            self._session.out.file.flush()

    def end(self) -> None:
        """End the line of a count."""
        if self._alike > MOST_ALIKE:
            self._session.out.file.write("\n")


def _entry_line(entry: LogEntry) -> Text:
    """Return an entry for a screen: its time, its text, the gateway's words, and what it is about."""
    said = words_of(entry.details.get("answer", ""))
    text = entry.text.rstrip(".") if said else entry.text
    return Text.assemble(
        (f"{short_moment(entry.time):>11}  " if _old(entry) else f"{_clock(entry.time)}  ", "dim"),
        (f"{enum_name(entry, 'level').lower():<7}  ", _LEVEL_STYLES.get(entry.level, "")),
        cell(f"{text}: {said}" if said else text),
        (_about(entry), "dim"),
    )


def _old(entry: LogEntry) -> bool:
    return len(short_moment(entry.time)) > len("09:00:00")


def _about(entry: LogEntry) -> str:
    about = [f"{name} {value}" for name in ("mailing", "message", "client") if (value := getattr(entry, f"{name}_id"))]
    return f" ({', '.join(about)})" if about else ""


def _entry_text(entry: LogEntry) -> str:
    said = words_of(entry.details.get("answer", ""))
    text = f"{entry.text.rstrip('.')}: {said}" if said else entry.text
    shown = cell(f"{text}{_about(entry)}")
    return f"{moment(entry.time)}  {enum_name(entry, 'level').lower():<7}  {entry.event:<18}  {shown}"
