"""`mailing messages` and `mailing attempts`: the outcome of every message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TextIO

import typer

from mailing.cli.commands.options import Limit, OfCountry, page_size, read_phone, read_values
from mailing.cli.files import STANDARD_STREAM, output_file
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.output import document_of, json_text, print_list, print_message
from mailing.cli.terminal.spreadsheet import utc, write_rows
from mailing.cli.terminal.tables import enum_name, facts_table, moment, short_moment
from mailing.cli.terminal.words import attempt_words, outcome
from mailing.v1.message_pb2 import Attempt, Message

app = typer.Typer(cls=SuggestingGroup, no_args_is_help=True, help="Read the record of every message.")

_COLUMNS = (">id", ">client", ">phone", "~what became of it", ">HTTP", ">time")
_WIDE = (">id", ">mailing", ">client", "phone", "status", "reason", ">attempts", "due", "settled", ">HTTP", ">code")
_ATTEMPT_COLUMNS = (">number", ">time", "~endpoint", "~how it ended", ">ms", "~answer")
_EXPORTED = (
    *("message_id", "mailing_id", "client_id", "phone", "status", "reason", "attempts", "due_time", "settle_time"),
    *("http_status", "code", "provider_id", "receipt", "receipt_time", "receipt_code", "text"),
)

MailingIdOption = Annotated[int, typer.Option("--mailing-id", metavar="ID", help="Messages of this mailing.")]
Statuses = Annotated[
    list[str],
    typer.Option("--status", metavar="STATUS", help="With this status, as failed; repeat for alternatives."),
]


@command(app, "list")
def list_messages(
    session: Session,
    mailing_id: MailingIdOption = 0,
    client_id: Annotated[int, typer.Option("--client-id", metavar="ID", help="Messages to this client.")] = 0,
    phone: Annotated[str | None, typer.Option("--phone", help="Messages to the client with this phone.")] = None,
    country: OfCountry = None,
    status: Statuses = [],  # noqa: B006 - typer copies the default
    limit: Limit = 50,
) -> None:
    """List the messages of a mailing, of a client, or of both."""
    if not (mailing_id or client_id or phone):
        raise typer.BadParameter("one of them is needed", param_hint=["--mailing-id", "--client-id", "--phone"])
    statuses = read_values("--status", status, Message.Status.items(), "STATUS_")
    digits = read_phone("--phone", phone, country) if phone else ""
    row = _wide_row if session.wide else _row
    with session.connected() as mailing:
        messages = mailing.list_messages(mailing_id, client_id, statuses, phone=digits, page_size=page_size(limit))
        print_list(session, "messages", messages, limit, _WIDE if session.wide else _COLUMNS, row)


@command(app, "get")
def get(session: Session, message_id: Annotated[int, typer.Argument(metavar="ID", help="The message's id.")]) -> None:
    """Show one message."""
    with session.connected() as mailing:
        message = mailing.get_message(message_id)
    facts = dict(zip((column.removeprefix(">") for column in _WIDE), _wide_row(message), strict=True))
    facts |= {"status": outcome(message), "reason": ""}
    print_message(session, message, lambda: facts_table(facts.items()))


@command(app, "export")
def export(
    session: Session,
    mailing_id: Annotated[int, typer.Argument(metavar="ID", help="The mailing's id.")],
    status: Statuses = [],  # noqa: B006
    csv: Annotated[bool, typer.Option("--csv", help="As a table for spreadsheets, which is the default.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="As a JSON document per line.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Keep cells that a spreadsheet would run as a formula.")] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Output file; - is standard output.")
    ] = STANDARD_STREAM,
) -> None:
    """Write every message of a mailing with phone and text, where you may see them."""
    if csv and jsonl:
        raise typer.BadParameter("one form at a time", param_hint=["--csv", "--jsonl"])
    statuses = read_values("--status", status, Message.Status.items(), "STATUS_")
    with session.connected() as client, output_file(output) as out:
        messages = client.export_messages(mailing_id, statuses)
        if jsonl or session.json:
            _write_lines(out, messages)
        else:
            write_rows(out, _EXPORTED, map(_exported, messages), raw)


def attempts(
    session: Session, message_id: Annotated[int, typer.Argument(metavar="ID", help="The message's id.")]
) -> None:
    """List the failed attempts of a message."""
    with session.connected() as client:
        print_list(session, "attempts", client.list_attempts(message_id), 0, _ATTEMPT_COLUMNS, _attempt_row)


def register(root: typer.Typer) -> None:
    """Add the group and `mailing attempts` to `root`."""
    root.add_typer(app, name="messages")
    command(root, "attempts")(attempts)


def _row(message: Message) -> Sequence[str]:
    return (
        str(message.id),
        str(message.client_id),
        message.phone,
        outcome(message),
        str(message.endpoint_status or ""),
        short_moment(_when(message)),
    )


def _when(message: Message) -> Any:
    return message.settle_time if message.HasField("settle_time") else message.due_time


def _wide_row(message: Message) -> Sequence[str]:
    return (
        str(message.id),
        str(message.mailing_id),
        str(message.client_id),
        message.phone,
        enum_name(message, "status"),
        enum_name(message, "reason"),
        str(message.attempts),
        moment(message.due_time),
        moment(message.settle_time),
        str(message.endpoint_status or ""),
        _code(message),
    )


def _exported(message: Message) -> Sequence[str]:
    return (
        *map(str, (message.id, message.mailing_id, message.client_id)),
        message.phone,
        enum_name(message, "status"),
        enum_name(message, "reason"),
        str(message.attempts),
        utc(message.due_time),
        utc(message.settle_time),
        str(message.endpoint_status or ""),
        _code(message),
        message.provider_id,
        enum_name(message, "receipt"),
        utc(message.receipt_time),
        message.receipt_code,
        message.text,
    )


def _code(message: Message | Attempt) -> str:
    return str(message.endpoint_code) if message.HasField("endpoint_code") else ""


def _write_lines(out: TextIO, messages: Iterable[Message]) -> None:
    for message in messages:
        out.write(json_text(document_of(message)) + "\n")


def _attempt_row(attempt: Attempt) -> Sequence[str]:
    return (
        str(attempt.number),
        short_moment(attempt.time),
        attempt.endpoint,
        attempt_words(attempt),
        str(attempt.duration.ToMilliseconds()),
        attempt.response_excerpt,
    )
