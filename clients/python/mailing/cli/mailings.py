"""`mailing mailings`: create, list, get, update and delete; `verbs` adds what moves a mailing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from mailing import MailingClient, new_duration, new_mailing, new_timestamp
from mailing.cli.options import (
    Attributes,
    ClientIds,
    Limit,
    OperatorCodes,
    Tags,
    Timezones,
    page_size,
    read_filter,
    read_optional,
    read_pairs,
    read_values,
)
from mailing.cli.output import enum_name, facts_table, moment, pairs, print_json, print_list, print_message
from mailing.cli.session import Session, command
from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.mailing_pb2 import Mailing, RetryPolicy

app = typer.Typer(no_args_is_help=True, help="Manage mailings: one text to many clients.")

_WHEN = "RFC 3339 (local time without a zone), +10m from now, or now."
MailingId = Annotated[int, typer.Argument(metavar="ID", help="The mailing's id.")]
Title = Annotated[str | None, typer.Option("--title", help="A name for people.")]
Start = Annotated[str | None, typer.Option("--start", metavar="WHEN", help=f"When sending begins: {_WHEN}")]
End = Annotated[str | None, typer.Option("--end", metavar="WHEN", help=f"When sending ends: {_WHEN}")]
Priority = Annotated[int | None, typer.Option("--priority", help="Higher ones are sent first: -1000 to 1000.")]
MaxRate = Annotated[float | None, typer.Option("--max-rate", help="Messages a second at the most; 0: no limit.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="The endpoint's name; '': the default one.")]
Labels = Annotated[
    list[str], typer.Option("--label", metavar="NAME=VALUE", help="A label to find it by; repeat for several.")
]
MaxAttempts = Annotated[int | None, typer.Option("--max-attempts", help="How often a message is tried in all.")]
InitialBackoff = Annotated[
    str | None,
    typer.Option("--initial-backoff", metavar="SPAN", help="The wait after the first failure, as 500ms or 1s."),
]
MaxBackoff = Annotated[str | None, typer.Option("--max-backoff", metavar="SPAN", help="The longest wait, as 5m.")]
Etag = Annotated[str, typer.Option("--etag", help="Fail if it was changed since this etag was read.")]


@command(app, "create")
def create(
    session: Session,
    text: Annotated[
        str, typer.Option("--text", help="What to send: {tag}, {phone}, {attributes.NAME|default} are filled in.")
    ],
    title: Title = None,
    tag: Tags = [],  # noqa: B006 - typer copies the default
    operator_code: OperatorCodes = [],  # noqa: B006
    timezone: Timezones = [],  # noqa: B006
    attribute: Attributes = [],  # noqa: B006
    client_id: ClientIds = [],  # noqa: B006
    start: Start = None,
    end: End = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Only clients that match at the start; else later ones too.")
    ] = False,
    at_most_once: Annotated[
        bool, typer.Option("--at-most-once", help="Never repeat a request whose outcome is not known.")
    ] = False,
    priority: Priority = None,
    max_rate: MaxRate = None,
    endpoint: Endpoint = None,
    max_attempts: MaxAttempts = None,
    initial_backoff: InitialBackoff = None,
    max_backoff: MaxBackoff = None,
    label: Labels = [],  # noqa: B006
    request_id: Annotated[
        str | None, typer.Option("--request-id", metavar="UUID", help="Repeating a call with it creates nothing new.")
    ] = None,
) -> None:
    """Create a mailing. It runs at once, or by itself when its start comes."""
    wanted = _wanted(title, start, end, priority, max_rate, endpoint, label)
    mailing = new_mailing(
        text,
        filter=read_filter(tag, operator_code, timezone, attribute, client_id),
        snapshot=snapshot,
        at_most_once=at_most_once,
        retry=_retry(max_attempts, initial_backoff, max_backoff),
    )
    mailing.MergeFrom(Mailing(**wanted))
    change(session, lambda client: client.create_mailing(mailing, request_id))


@command(app, "update")
def update(
    session: Session,
    mailing_id: MailingId,
    text: Annotated[str | None, typer.Option("--text", help="What to send.")] = None,
    title: Title = None,
    tag: Tags = [],  # noqa: B006
    operator_code: OperatorCodes = [],  # noqa: B006
    timezone: Timezones = [],  # noqa: B006
    attribute: Attributes = [],  # noqa: B006
    client_id: ClientIds = [],  # noqa: B006
    start: Start = None,
    end: End = None,
    priority: Priority = None,
    max_rate: MaxRate = None,
    endpoint: Endpoint = None,
    max_attempts: MaxAttempts = None,
    initial_backoff: InitialBackoff = None,
    max_backoff: MaxBackoff = None,
    label: Labels = [],  # noqa: B006
    clear: Annotated[
        list[str], typer.Option("--clear", metavar="FIELD", help="Empty this field, as end_time or filter.")
    ] = [],  # noqa: B006
    etag: Etag = "",
) -> None:
    """Change a mailing that is not over; only what is given changes."""
    wanted = _wanted(title, start, end, priority, max_rate, endpoint, label)
    if text is not None:
        wanted["text"] = text
    if chosen := read_filter(tag, operator_code, timezone, attribute, client_id):
        wanted["filter"] = chosen
    if retry := _retry(max_attempts, initial_backoff, max_backoff):
        wanted["retry"] = retry
    both = sorted(wanted.keys() & set(clear))
    if both:
        raise typer.BadParameter(f"{both[0]} is set and cleared at once", param_hint="--clear")
    fields = [*wanted, *clear]
    if not fields:
        raise typer.BadParameter("nothing to change is given")
    mailing = Mailing(id=mailing_id, etag=etag, **wanted)
    change(session, lambda client: client.update_mailing(mailing, fields))


@command(app, "list")
def list_mailings(
    session: Session,
    state: Annotated[
        list[str], typer.Option("--state", metavar="STATE", help="In this state, as running; repeat for alternatives.")
    ] = [],  # noqa: B006
    label: Annotated[list[str], typer.Option("--label", metavar="NAME=VALUE", help="With this label.")] = [],  # noqa: B006
    limit: Limit = 50,
) -> None:
    """List mailings, newest first, with their short statistics."""
    states = read_values("--state", state, Mailing.State.items(), "STATE_")
    labels = read_pairs("--label", label)
    columns = (">id", "title", "state", "start", ">total", ">pending", ">delivered", ">undelivered")
    with session.connected() as mailing:
        mailings = mailing.list_mailings(states, labels, page_size=page_size(limit))
        print_list(session, "mailings", mailings, limit, columns, _row)


@command(app, "get")
def get(session: Session, mailing_id: MailingId) -> None:
    """Show one mailing with its statistics."""
    change(session, lambda client: client.get_mailing(mailing_id))


@command(app, "delete")
def delete(
    session: Session,
    mailing_id: MailingId,
    etag: Etag = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="A mailing that is not there is no failure.")
    ] = False,
) -> None:
    """Delete a mailing that is not running, and its ledger."""
    with session.connected() as mailing:
        deleted = mailing.delete_mailing(mailing_id, etag, allow_missing=allow_missing)
    if session.json:
        print_json(session, {"deleted_messages": deleted})
    else:
        session.out.print(f"Mailing {mailing_id} is deleted, and {deleted:,} messages with it.")


def mailing_table(mailing: Mailing) -> Table:
    """Returns what people want to know about one mailing."""
    return facts_table(
        [
            ("id", str(mailing.id)),
            ("title", mailing.title),
            ("state", enum_name(mailing, "state")),
            ("text", mailing.text),
            ("clients", _audience(mailing.filter) + f" ({enum_name(mailing, 'audience_mode').lower()})"),
            ("start", moment(mailing.start_time)),
            ("end", moment(mailing.end_time)),
            ("semantics", enum_name(mailing, "semantics").lower().replace("_", " ")),
            ("priority", str(mailing.priority or "")),
            ("max rate", f"{mailing.max_rate:g}/s" if mailing.max_rate else ""),
            ("endpoint", mailing.endpoint),
            ("labels", pairs(mailing.labels)),
            *_progress(mailing),
            ("etag", mailing.etag),
        ]
    )


def _progress(mailing: Mailing) -> list[tuple[str, str]]:
    progress = mailing.progress
    counts = ("total", "pending", "delivered", "failed", "expired", "cancelled", "skipped", "unknown", "attempts")
    shown = [(name, getattr(progress, name)) for name in counts]
    return [(name, f"{count:,}") for name, count in shown if count or name in ("total", "delivered")] + [
        ("first delivery", moment(progress.first_delivery_time)),
        ("last delivery", moment(progress.last_delivery_time)),
    ]


def change(session: Session, call: Callable[[MailingClient], Mailing]) -> None:
    """Makes a call that returns a mailing, and shows the mailing."""
    with session.connected() as client:
        mailing = call(client)
    print_message(session, mailing, lambda: mailing_table(mailing))


def _row(mailing: Mailing) -> Sequence[str]:
    progress = mailing.progress
    undelivered = progress.total - progress.pending - progress.delivered
    counts = (progress.total, progress.pending, progress.delivered, undelivered)
    return (
        str(mailing.id),
        mailing.title,
        enum_name(mailing, "state"),
        moment(mailing.start_time),
        *(f"{count:,}" for count in counts),
    )


def _audience(chosen: ClientFilter) -> str:
    lists = ("tags", "operator_codes", "timezones", "client_ids")
    parts = [f"{name}: {', '.join(map(str, getattr(chosen, name)))}" for name in lists if getattr(chosen, name)]
    if chosen.attributes:
        parts.append(f"attributes: {pairs(chosen.attributes)}")
    return "; ".join(parts) or "all"


def _wanted(
    title: str | None,
    start: str | None,
    end: str | None,
    priority: int | None,
    max_rate: float | None,
    endpoint: str | None,
    labels: list[str],
) -> dict[str, Any]:
    """Returns the fields that were given, by their names in the contract."""
    fields = {
        "title": title,
        "start_time": read_optional("--start", new_timestamp, start),
        "end_time": read_optional("--end", new_timestamp, end),
        "priority": priority,
        "max_rate": max_rate,
        "endpoint": endpoint,
        "labels": read_pairs("--label", labels) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _retry(max_attempts: int | None, initial_backoff: str | None, max_backoff: str | None) -> RetryPolicy | None:
    if max_attempts is None and initial_backoff is None and max_backoff is None:
        return None
    return RetryPolicy(
        max_attempts=max_attempts or 0,
        initial_backoff=read_optional("--initial-backoff", new_duration, initial_backoff),
        max_backoff=read_optional("--max-backoff", new_duration, max_backoff),
    )
