"""Segments: filters with a name, written as text; whom they hold, and who still needs one that is to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from starlette.responses import Response
from starlette.routing import Route

from mailing.errors import MailingError
from mailing.v1.segment_pb2 import Segment
from mailing.v1.segment_service_pb2 import (
    CreateSegmentRequest,
    DeleteSegmentRequest,
    GetSegmentRequest,
    ListSegmentsRequest,
    PreviewSegmentRequest,
    UpdateSegmentRequest,
)
from server.console.forms import Form, change, place
from server.console.live import Drawings
from server.console.mailing_fields import changed_paths
from server.console.visit import Console, Visit, number_in, page_route, redirect

PAGE = 50
_PATHS = {"name": "name", "filter_text": "filter"}
_NAMES = {"filter": "filter_text"}


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of these screens."""
    new, one = "/segments/new", "/segments/{segment_id:int}"
    pages = {"/segments": show_list, new: blank, one: show, f"{one}/delete": ask}
    return [
        *(page_route(console, path, handler) for path, handler in pages.items()),
        change(console, new, create),
        change(console, one, save),
        *(change(console, f"{path}/preview", preview) for path in (new, one)),
        change(console, f"{one}/delete", delete),
    ]


async def show_list(visit: Visit) -> Response:
    """Show one page of segments, in the order of their names."""
    token = visit.request.query_params.get("page", "")
    request = ListSegmentsRequest(page_size=PAGE, page_token=token)
    found = await visit.call(visit.service.segments.ListSegments, request)
    return visit.page("segments.html", found=found, first=not token, live="", part={})


async def blank(visit: Visit) -> Response:
    """Show the form for a new segment."""
    return _page(visit, {})


async def show(visit: Visit) -> Response:
    """Show a segment with its filter as text, and how many clients belong to it."""
    segment = await _segment(visit)
    request = PreviewSegmentRequest(segment_id=segment.id)
    found = await visit.call(visit.service.segments.PreviewSegment, request)
    given = {"name": segment.name, "filter_text": found.filter_text, "etag": segment.etag}
    return _page(visit, given, found=found)


async def create(visit: Visit, form: Form) -> Response:
    """Add a segment."""
    segment = Segment(name=form.get("name"), filter_text=form.get("filter_text"))
    try:
        request = CreateSegmentRequest(segment=segment, request_id=form.get("request_id"))
        await visit.call(visit.service.segments.CreateSegment, request)
    except MailingError as error:
        place(error, form, "segment.", _NAMES)
        return _page(visit, form.texts, 422, errors=form.errors)
    return redirect("/segments")


async def save(visit: Visit, form: Form) -> Response:
    """Rename a segment or give it another filter, unless somebody else has changed it meanwhile."""
    before = await _segment(visit)
    request = PreviewSegmentRequest(segment_id=before.id)
    text = (await visit.call(visit.service.segments.PreviewSegment, request)).filter_text
    paths = changed_paths({"name": before.name, "filter_text": text}, form, _PATHS)
    segment = Segment(id=before.id, name=form.get("name"), filter_text=form.get("filter_text"), etag=form.get("etag"))
    try:
        if paths:
            wanted = UpdateSegmentRequest(segment=segment, update_mask=FieldMask(paths=paths))
            await visit.call(visit.service.segments.UpdateSegment, wanted)
    except MailingError as error:
        place(error, form, "segment.", _NAMES)
        return _page(visit, form.texts, 422, errors=form.errors)
    return redirect("/segments")


async def preview(visit: Visit, form: Form) -> Response:
    """Show how a filter is understood, and how many clients match it."""
    found = None
    if form.get("filter_text"):
        try:
            request = PreviewSegmentRequest(filter_text=form.get("filter_text"))
            found = await visit.call(visit.service.segments.PreviewSegment, request)
        except MailingError as error:
            place(error, form, "", _NAMES)
    if visit.request.headers.get("hx-request"):
        return visit.page("fragments/segment_preview.html", found=found, errors=form.errors)
    return _page(visit, form.texts, found=found, errors=form.errors)


async def ask(visit: Visit) -> Response:
    """Name what deleting a segment does."""
    return visit.page("segment_delete.html", segment=await _segment(visit), refusal=None, live="", part={})


async def delete(visit: Visit, form: Form) -> Response:
    """Delete a segment, or show which mailings and schedules name it."""
    segment_id = number_in(visit.request, "segment_id")
    try:
        await visit.call(visit.service.segments.DeleteSegment, DeleteSegmentRequest(segment_id=segment_id))
    except MailingError as error:
        if error.code is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        segment = await _segment(visit)
        return visit.page("segment_delete.html", 409, segment=segment, refusal=error, live="", part={})
    return redirect("/segments")


async def _segment(visit: Visit) -> Segment:
    request = GetSegmentRequest(segment_id=number_in(visit.request, "segment_id"))
    return (await visit.call(visit.service.segments.GetSegment, request)).segment


def _page(visit: Visit, given: Mapping[str, str], status: int = 200, **found: object) -> Response:
    empty: dict[str, object] = {"errors": {}, "found": None}
    segment_id = number_in(visit.request, "segment_id")
    return visit.page("segment.html", status, given=given, segment_id=segment_id, live="", part={}, **empty | found)
