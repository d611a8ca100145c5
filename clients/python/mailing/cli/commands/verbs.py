"""`mailing pause`, `resume`, `cancel`, `retry` and `attempts`: what one does with a mailing under way.

`mailing mailings` has the first four, too, beside the other commands of mailings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from mailing.cli.commands.mailings import MailingId, change
from mailing.cli.commands.options import read_values
from mailing.cli.session import Session, command
from mailing.cli.terminal.output import enum_name, moment, print_json, print_list
from mailing.v1.message_pb2 import Attempt, Message

_ATTEMPTS = (">number", "time", "endpoint", "class", ">HTTP", ">code", ">ms", "answer")


def pause(session: Session, mailing_id: MailingId) -> None:
    """Stop a mailing until it is resumed."""
    change(session, lambda client: client.pause_mailing(mailing_id))


def resume(session: Session, mailing_id: MailingId) -> None:
    """Let a paused mailing go on."""
    change(session, lambda client: client.resume_mailing(mailing_id))


def cancel(session: Session, mailing_id: MailingId) -> None:
    """End a mailing for good; what was not sent is cancelled."""
    change(session, lambda client: client.cancel_mailing(mailing_id))


def retry(
    session: Session,
    mailing_id: MailingId,
    status: Annotated[
        list[str],
        typer.Option("--status", metavar="STATUS", help="Those that are failed, expired or unknown; repeat for more."),
    ],
) -> None:
    """Send messages again that were not delivered, with fresh attempts."""
    statuses = read_values("--status", status, Message.Status.items(), "STATUS_")
    with session.connected() as client:
        requeued = client.retry_mailing(mailing_id, statuses)
    if session.json:
        print_json(session, {"requeued": requeued})
    else:
        session.out.print(f"{requeued:,} messages of mailing {mailing_id} are pending again.")


def attempts(
    session: Session, message_id: Annotated[int, typer.Argument(metavar="ID", help="The message's id.")]
) -> None:
    """List the failed attempts of a message."""
    with session.connected() as client:
        print_list(session, "attempts", client.list_attempts(message_id), 0, _ATTEMPTS, _row)


def register(app: typer.Typer, mailings: typer.Typer) -> None:
    """Adds the commands to the root, and those of mailings to `mailings`."""
    verbs: Mapping[str, Callable[..., None]] = {"pause": pause, "resume": resume, "cancel": cancel, "retry": retry}
    for name, function in verbs.items():
        command(app, name)(function)
        command(mailings, name)(function)
    command(app, "attempts")(attempts)


def _row(attempt: Attempt) -> Sequence[str]:
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
