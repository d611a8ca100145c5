"""`mailing messages` and `mailing attempts`: the outcome of every message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mailing.cli.commands.options import Limit, page_size, read_values
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import print_list, print_message
from mailing.cli.terminal.tables import enum_name, facts_table, moment
from mailing.v1.message_pb2 import Attempt, Message

app = typer.Typer(no_args_is_help=True, help="Read the record of every message.")

_COLUMNS = (">id", ">mailing", ">client", "status", "reason", ">attempts", "due", "settled", ">HTTP", ">code")
_ATTEMPT_COLUMNS = (">number", "time", "endpoint", "class", ">HTTP", ">code", ">ms", "answer")


@command(app, "list")
def list_messages(
    session: Session,
    mailing_id: Annotated[int, typer.Option("--mailing-id", metavar="ID", help="Messages of this mailing.")] = 0,
    client_id: Annotated[int, typer.Option("--client-id", metavar="ID", help="Messages to this client.")] = 0,
    status: Annotated[
        list[str],
        typer.Option("--status", metavar="STATUS", help="With this status, as failed; repeat for alternatives."),
    ] = [],  # noqa: B006 - typer copies the default
    limit: Limit = 50,
) -> None:
    """List the messages of a mailing, of a client, or of both."""
    if not (mailing_id or client_id):
        raise typer.BadParameter("one of them is needed", param_hint=["--mailing-id", "--client-id"])
    statuses = read_values("--status", status, Message.Status.items(), "STATUS_")
    with session.connected() as mailing:
        messages = mailing.list_messages(mailing_id, client_id, statuses, page_size=page_size(limit))
        print_list(session, "messages", messages, limit, _COLUMNS, _row)


@command(app, "get")
def get(session: Session, message_id: Annotated[int, typer.Argument(metavar="ID", help="The message's id.")]) -> None:
    """Show one message."""
    with session.connected() as mailing:
        message = mailing.get_message(message_id)
    names = [column.removeprefix(">") for column in _COLUMNS]
    print_message(session, message, lambda: facts_table(zip(names, _row(message), strict=True)))


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
        str(message.mailing_id),
        str(message.client_id),
        enum_name(message, "status"),
        enum_name(message, "reason"),
        str(message.attempts),
        moment(message.due_time),
        moment(message.settle_time),
        str(message.endpoint_status or ""),
        str(message.endpoint_code) if message.HasField("endpoint_code") else "",
    )


def _attempt_row(attempt: Attempt) -> Sequence[str]:
    return (
        str(attempt.number),
        moment(attempt.time),
        attempt.endpoint,
        enum_name(attempt, "error_class"),
        str(attempt.endpoint_status or ""),
        str(attempt.endpoint_code) if attempt.HasField("endpoint_code") else "",
        str(attempt.duration.ToMilliseconds()),
        attempt.response_excerpt,
    )
