"""`mailing segments`: filters with a name, which mailings and other filters refer to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.table import Table

from mailing import MailingClient
from mailing.cli.commands.options import Limit, page_size
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.output import print_json, print_list, print_message
from mailing.cli.terminal.tables import facts_table, moment
from mailing.v1.segment_pb2 import Segment
from mailing.v1.segment_service_pb2 import (
    CreateSegmentRequest,
    DeleteSegmentRequest,
    GetSegmentRequest,
    ListSegmentsRequest,
    PreviewSegmentRequest,
    PreviewSegmentResponse,
    UpdateSegmentRequest,
)

app = typer.Typer(cls=SuggestingGroup, no_args_is_help=True, help="Manage segments: filters with a name.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The segment's name.")]
Text = Annotated[
    str, typer.Argument(metavar="FILTER", help="Who belongs to it, such as 'tag = \"vip\" AND attributes.age >= 30'.")
]
Etag = Annotated[str, typer.Option("--etag", help="Fail if the segment changed since this etag was read.")]


@command(app, "create")
def create(session: Session, name: Name, filter_text: Text) -> None:
    """Add a segment."""
    request = CreateSegmentRequest(segment=Segment(name=name, filter_text=filter_text))
    with session.connected() as client:
        _print(session, client, client.call(client.segments.CreateSegment, request).segment)


@command(app, "get")
def get(session: Session, name: Name) -> None:
    """Show a segment, with its filter as text and how many clients belong to it."""
    with session.connected() as client:
        _print(session, client, _found(client, name))


@command(app, "list")
def list_segments(session: Session, limit: Limit = 50) -> None:
    """List segments in the order of their names."""
    with session.connected() as client:
        print_list(session, "segments", _all(client, limit), limit, ("name", ">clients", "counted", "changed"), _row)


@command(app, "update")
def update(
    session: Session,
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its new name.")] = None,
    filter_text: Annotated[str | None, typer.Option("--filter", metavar="TEXT", help="Who belongs to it.")] = None,
    etag: Etag = "",
) -> None:
    """Rename a segment, or change its filter: running mailings that are open to later clients follow."""
    request = UpdateSegmentRequest(segment=Segment(etag=etag, name=new_name or "", filter_text=filter_text or ""))
    given = (("name", new_name), ("filter_text", filter_text))
    request.update_mask.paths.extend(field for field, value in given if value is not None)
    if not request.update_mask.paths:
        raise typer.BadParameter("nothing to change is given")
    with session.connected() as client:
        request.segment.id = _found(client, name).id
        _print(session, client, client.call(client.segments.UpdateSegment, request).segment)


@command(app, "delete")
def delete(session: Session, name: Name, etag: Etag = "") -> None:
    """Remove a segment that no schedule and no mailing under way names."""
    with session.connected() as client:
        request = DeleteSegmentRequest(segment_id=_found(client, name).id, etag=etag)
        client.call(client.segments.DeleteSegment, request)
    if session.json:
        print_json(session, {})
    else:
        session.out.print(f"deleted {name}")


@command(app, "preview")
def preview(session: Session, filter_text: Text) -> None:
    """Show how a filter is understood and how many clients match it now; nothing is stored."""
    with session.connected() as client:
        answer = client.call(client.segments.PreviewSegment, PreviewSegmentRequest(filter_text=filter_text))
    print_message(session, answer, lambda: facts_table(_understood(answer)))


def _found(client: MailingClient, name: str) -> Segment:
    return client.call(client.segments.GetSegment, GetSegmentRequest(name=name)).segment


def _all(client: MailingClient, limit: int) -> Iterator[Segment]:
    request = ListSegmentsRequest(page_size=page_size(limit))
    while True:
        page = client.call(client.segments.ListSegments, request)
        yield from page.segments
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _print(session: Session, client: MailingClient, segment: Segment) -> None:
    """Print a segment; for people with its filter as text."""
    print_message(session, segment, lambda: _table(client, segment))


def _table(client: MailingClient, segment: Segment) -> Table:
    understood = client.call(client.segments.PreviewSegment, PreviewSegmentRequest(filter=segment.filter))
    return facts_table(
        [
            ("id", str(segment.id)),
            ("name", segment.name),
            *_understood(understood),
            ("created", moment(segment.create_time)),
            ("changed", moment(segment.update_time)),
            ("etag", segment.etag),
        ]
    )


def _understood(answer: PreviewSegmentResponse) -> list[tuple[str, str]]:
    return [("filter", answer.filter_text or "all clients"), ("clients", f"{answer.size:,}")]


def _row(segment: Segment) -> Sequence[str]:
    counted = segment.HasField("size_time")
    return (
        segment.name,
        f"{segment.size:,}" if counted else "",
        moment(segment.size_time) if counted else "",
        moment(segment.update_time),
    )
