"""`mailing mailings`: create, list, get, update, delete, and the controls of a running mailing.

The controls are `pause`, `resume`, `cancel` and `retry`; the root command has them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from mailing import MailingClient
from mailing.cli.commands.mailing_creation import create
from mailing.cli.commands.mailing_options import MailingFields
from mailing.cli.commands.options import Limit, page_size, read_pairs, read_values
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.mailing_table import mailing_table
from mailing.cli.terminal.output import print_json, print_list, print_message
from mailing.cli.terminal.plan import plan_words, short_start
from mailing.cli.terminal.tables import enum_name, moment
from mailing.cli.terminal.words import counted
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message

app = typer.Typer(cls=SuggestingGroup, no_args_is_help=True, help="Manage mailings: one text to many clients.")

MailingId = Annotated[int, typer.Argument(metavar="ID", help="The mailing's id.")]
Etag = Annotated[str, typer.Option("--etag", help="Fail if the mailing changed since this etag was read.")]


command(app, "create")(create)


@command(app, "update")
def update(
    session: Session,
    mailing_id: MailingId,
    fields: MailingFields,
    text: Annotated[str | None, typer.Option("--text", help="The message.")] = None,
    clear: Annotated[
        list[str], typer.Option("--clear", metavar="FIELD", help="Clear this field, as end_time or filter.")
    ] = [],  # noqa: B006 - typer copies the default
    etag: Etag = "",
) -> None:
    """Change a mailing that is not finished; only what is given changes."""
    wanted = fields.given()
    if text is not None:
        wanted["text"] = text
    both = sorted({"filter" if name == "filter_text" else name for name in wanted} & set(clear))
    if both:
        raise typer.BadParameter(f"{both[0]} is set and cleared at once", param_hint="--clear")
    mask = [*wanted, *clear]
    if not mask:
        raise typer.BadParameter("nothing to change is given")
    mailing = Mailing(id=mailing_id, etag=etag, **wanted)
    print_result(session, lambda client: client.update_mailing(mailing, mask))


@command(app, "list")
def list_mailings(
    session: Session,
    state: Annotated[
        list[str], typer.Option("--state", metavar="STATE", help="In this state, as running; repeat for alternatives.")
    ] = [],  # noqa: B006
    label: Annotated[list[str], typer.Option("--label", metavar="NAME=VALUE", help="With this label.")] = [],  # noqa: B006
    limit: Limit = 50,
) -> None:
    """List mailings, newest first, with their progress."""
    states = read_values("--state", state, Mailing.State.items(), "STATE_")
    labels = read_pairs("--label", label)
    columns = (">id", "~title", "state", ">start", ">total", ">delivered", ">undelivered")
    with session.connected() as mailing:
        mailings = mailing.list_mailings(states, labels, page_size=page_size(limit))
        print_list(session, "mailings", mailings, limit, columns, _row, ">pending", "start time", "plan")


@command(app, "get")
def get(session: Session, mailing_id: MailingId) -> None:
    """Show one mailing with its progress."""
    print_result(session, lambda client: client.get_mailing(mailing_id))


@command(app, "delete")
def delete(
    session: Session,
    mailing_id: MailingId,
    etag: Etag = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Succeed when there is no such mailing.")
    ] = False,
) -> None:
    """Delete a mailing that is not running, and its messages."""
    with session.connected() as mailing:
        deleted = mailing.delete_mailing(mailing_id, etag, allow_missing=allow_missing)
    if session.json:
        print_json(session, {"deleted_messages": deleted, "remaining_messages": deleted.remaining})
        return
    session.out.print(f"Mailing {mailing_id} is deleted, and {counted(deleted, 'message')} with it.")
    if deleted.remaining:
        session.out.print(f"The service removes {counted(deleted.remaining, 'message')} more by itself.")


def pause(session: Session, mailing_id: MailingId) -> None:
    """Stop a mailing until it is resumed."""
    print_result(session, lambda client: client.pause_mailing(mailing_id))


def resume(session: Session, mailing_id: MailingId) -> None:
    """Resume a paused mailing."""
    print_result(session, lambda client: client.resume_mailing(mailing_id))


def cancel(session: Session, mailing_id: MailingId) -> None:
    """Cancel a mailing for good; messages not sent yet are cancelled."""
    print_result(session, lambda client: client.cancel_mailing(mailing_id))


def retry(
    session: Session,
    mailing_id: MailingId,
    status: Annotated[
        list[str],
        typer.Option(
            "--status", metavar="STATUS", help="Messages that are failed, expired or unknown; repeat for several."
        ),
    ],
) -> None:
    """Retry messages that were not delivered, with a new set of attempts."""
    statuses = read_values("--status", status, Message.Status.items(), "STATUS_")
    with session.connected() as client:
        requeued = client.retry_mailing(mailing_id, statuses)
    if session.json:
        print_json(session, {"requeued": requeued})
    else:
        session.out.print(f"Mailing {mailing_id} sends {counted(requeued, 'message')} again.")


def register(root: typer.Typer) -> None:
    """Add the group to `root`, and there once more what controls a running mailing: `mailing pause ID`."""
    root.add_typer(app, name="mailings")
    controls: Mapping[str, Callable[..., None]] = {"pause": pause, "resume": resume, "cancel": cancel, "retry": retry}
    for name, function in controls.items():
        command(app, name)(function)
        command(root, name)(function)


def print_result(session: Session, call: Callable[[MailingClient], Mailing]) -> None:
    """Make a call that returns a mailing, and print the mailing."""
    with session.connected() as client:
        mailing = call(client)
    print_message(session, mailing, lambda: mailing_table(mailing))


def _row(mailing: Mailing) -> Sequence[str]:
    progress = mailing.progress
    undelivered = progress.total - progress.pending - progress.delivered
    counts = (progress.total, progress.delivered, undelivered, progress.pending)
    return (
        str(mailing.id),
        mailing.title,
        enum_name(mailing, "state"),
        short_start(mailing),
        *(f"{count:,}" for count in counts),
        moment(mailing.begin_time if mailing.HasField("local_start") else mailing.start_time),
        plan_words(mailing),
    )
