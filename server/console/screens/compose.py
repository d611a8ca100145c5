"""Writing a mailing: a new one, a copy or a change of one; its preview while it is filled in, and a test message.

The form carries the id of its request, so that sent twice it creates one mailing. What the API has against
a field is shown beside that field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from starlette.responses import Response
from starlette.routing import Route

from mailing.errors import MailingError
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import (
    CreateMailingRequest,
    GetMailingRequest,
    PreviewMailingRequest,
    PreviewMailingResponse,
    SendTestMessageRequest,
    UpdateMailingRequest,
)
from server.console.forms import Form, change, place
from server.console.live import Drawings
from server.console.mailing_fields import NAMES, TIMES, changed_paths, fields_of, read_mailing, segment_names
from server.console.visit import Console, Visit, number_in, page_route, redirect

SAMPLES = 3


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    new, edit = "/mailings/new", "/mailings/{mailing_id:int}/edit"
    return [
        page_route(console, new, blank),
        change(console, new, create),
        page_route(console, edit, stored),
        change(console, edit, save),
        *(change(console, f"{path}/preview", preview) for path in (new, edit)),
        *(change(console, f"{path}/test", test) for path in (new, edit)),
    ]


async def blank(visit: Visit) -> Response:
    """Show the form, empty, for a segment, or as another mailing's copy, without its times."""
    given: Mapping[str, str] = {"segment": visit.request.query_params.get("segment", "")}
    if source := number_in(visit.request, "clone"):
        given = await fields_of(visit, await _mailing(visit, source)) | dict.fromkeys(TIMES, "")
    return await _page(visit, given)


async def stored(visit: Visit) -> Response:
    """Show the form with what a mailing has."""
    mailing = await _mailing(visit, number_in(visit.request, "mailing_id"))
    return await _page(visit, await fields_of(visit, mailing) | {"etag": mailing.etag})


async def create(visit: Visit, form: Form) -> Response:
    """Create the mailing, or show the form again with what is wrong."""
    mailing = read_mailing(form, visit.viewer)
    if form.errors:
        return await _again(visit, form)
    try:
        request = CreateMailingRequest(mailing=mailing, request_id=form.get("request_id"))
        made = (await visit.call(visit.service.mailings.CreateMailing, request)).mailing
    except MailingError as error:
        place(error, form, "mailing.", NAMES)
        return await _again(visit, form)
    return redirect(f"/mailings/{made.id}")


async def save(visit: Visit, form: Form) -> Response:
    """Change what is not in the form as it was, unless somebody else has changed the mailing meanwhile."""
    before = await _mailing(visit, number_in(visit.request, "mailing_id"))
    paths = changed_paths(await fields_of(visit, before), form)
    mailing = read_mailing(form, visit.viewer)
    if form.errors:
        return await _again(visit, form)
    mailing.id, mailing.etag = before.id, form.get("etag")
    try:
        if paths:
            request = UpdateMailingRequest(mailing=mailing, update_mask=FieldMask(paths=paths))
            await visit.call(visit.service.mailings.UpdateMailing, request)
    except MailingError as error:
        place(error, form, "mailing.", NAMES)
        return await _again(visit, form)
    return redirect(f"/mailings/{before.id}")


async def preview(visit: Visit, form: Form) -> Response:
    """Show whom the mailing would reach; a fragment for the page, or the whole page without script."""
    mailing, found = read_mailing(form, visit.viewer), None
    if not form.errors and mailing.text:
        try:
            found = await previewed(visit, mailing)
        except MailingError as error:
            place(error, form, "mailing.", NAMES)
    if visit.request.headers.get("hx-request"):
        return visit.page("fragments/preview.html", preview=found, errors=form.errors)
    return await _again(visit, form, 200, preview=found)


async def test(visit: Visit, form: Form) -> Response:
    """Send the text to one phone, once for each answer that was shown, and show how that ended."""
    mailing, sent = read_mailing(form, visit.viewer), None
    if not form.errors:
        phone, request_id = form.get("test_phone"), form.get("test_id")
        request = SendTestMessageRequest(mailing=mailing, phone=phone, request_id=request_id)
        try:
            sent = await visit.call(visit.service.mailings.SendTestMessage, request)
        except MailingError as error:
            place(error, form, "mailing.", NAMES)
    if visit.request.headers.get("hx-request"):
        return visit.page("fragments/test_message.html", sent=sent, errors=form.errors)
    return await _again(visit, form, 200, sent=sent)


async def previewed(visit: Visit, mailing: Mailing) -> PreviewMailingResponse:
    """Return what a mailing would do. Raise MailingError."""
    request = PreviewMailingRequest(mailing=mailing, samples=SAMPLES)
    return await visit.call(visit.service.mailings.PreviewMailing, request)


async def _mailing(visit: Visit, mailing_id: int) -> Mailing:
    return (await visit.call(visit.service.mailings.GetMailing, GetMailingRequest(mailing_id=mailing_id))).mailing


async def _again(visit: Visit, form: Form, status: int = 422, **found: object) -> Response:
    return await _page(visit, form.texts, status, errors=form.errors, **found)


async def _page(visit: Visit, given: Mapping[str, str], status: int = 200, **found: object) -> Response:
    empty: dict[str, object] = {"errors": {}, "preview": None, "sent": None}
    mailing_id, segments = number_in(visit.request, "mailing_id"), await segment_names(visit)
    return visit.page(
        "compose.html", status, given=given, segments=segments, mailing_id=mailing_id, timed=True, live="", part={},
        **empty | found,
    )  # fmt: skip
