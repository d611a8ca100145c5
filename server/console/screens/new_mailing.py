"""A new mailing: the form, its preview while it is filled in, a test message, and the creation.

The form carries the id of its request, so that sent twice it creates one mailing. What the API has against
a field is shown beside that field.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mailing.errors import MailingError
from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import (
    CreateMailingRequest,
    GetMailingRequest,
    PreviewMailingRequest,
    PreviewMailingResponse,
    SendTestMessageRequest,
)
from mailing.v1.segment_service_pb2 import PreviewSegmentRequest
from server.console.forms import Form, change, place
from server.console.live import Drawings
from server.console.viewer import Viewer
from server.console.visit import Console, Visit, begin_visit, number_in, redirect

SAMPLES = 3
_PLAIN = ("tags", "timezones", "operator_codes", "attributes", "client_ids")
"""The fields of a filter that the form has fields for."""

_FIELDS = {
    "filter_text": "filter_text",
    "end_time": "end",
    "start_time": "start",
    "retry": "max_attempts",
    "phone": "test_phone",
}


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""

    async def show(request: Request) -> Response:
        return await blank(await begin_visit(console, request))

    return [
        Route("/mailings/new", show, methods=["GET"]),
        change(console, "/mailings/new", create),
        change(console, "/mailings/new/preview", preview),
        change(console, "/mailings/new/test", test),
    ]


async def blank(visit: Visit) -> Response:
    """Show the form, empty or as another mailing's copy."""
    given: dict[str, str] = {}
    if source := number_in(visit.request, "clone"):
        request = GetMailingRequest(mailing_id=source)
        mailing = (await visit.call(visit.service.mailings.GetMailing, request)).mailing
        given = fields_of(mailing, visit.viewer)
        if any(name not in _PLAIN for name in (field.name for field, _ in mailing.filter.ListFields())):
            given |= {**dict.fromkeys(_PLAIN, ""), "filter_text": await _text_of(visit, mailing.filter)}
    return _page(visit, given, str(uuid4()))


async def _text_of(visit: Visit, chosen: ClientFilter) -> str:
    """Return a filter as text, as the fields of the form cannot say it."""
    return (await visit.call(visit.service.segments.PreviewSegment, PreviewSegmentRequest(filter=chosen))).filter_text


async def create(visit: Visit, form: Form) -> Response:
    """Create the mailing, or show the form again with what is wrong."""
    mailing = mailing_of(form, visit.viewer)
    if form.errors:
        return _again(visit, form)
    try:
        request = CreateMailingRequest(mailing=mailing, request_id=form.get("request_id"))
        made = (await visit.call(visit.service.mailings.CreateMailing, request)).mailing
    except MailingError as error:
        place(error, form, "mailing.", _FIELDS)
        return _again(visit, form)
    return redirect(f"/mailings/{made.id}")


async def preview(visit: Visit, form: Form) -> Response:
    """Show whom the mailing would reach; a fragment for the page, or the whole page without script."""
    mailing, found = mailing_of(form, visit.viewer), None
    if not form.errors and mailing.text:
        try:
            found = await _previewed(visit, mailing)
        except MailingError as error:
            place(error, form, "mailing.", _FIELDS)
    if visit.request.headers.get("hx-request"):
        return visit.page("fragments/preview.html", preview=found, errors=form.errors, mailing=mailing)
    return _again(visit, form, found, mailing, 200)


async def test(visit: Visit, form: Form) -> Response:
    """Send the text to one phone and show how that ended."""
    mailing, sent = mailing_of(form, visit.viewer), None
    if not form.errors:
        request = SendTestMessageRequest(mailing=mailing, phone=form.get("test_phone"))
        try:
            sent = await visit.call(visit.service.mailings.SendTestMessage, request)
        except MailingError as error:
            place(error, form, "mailing.", _FIELDS)
    if visit.request.headers.get("hx-request"):
        return visit.page("fragments/test_message.html", sent=sent, errors=form.errors)
    return _again(visit, form, sent=sent, status=200)


def mailing_of(form: Form, viewer: Viewer) -> Mailing:
    """Return the mailing that a form describes; what cannot be read is noted in the form."""
    mailing = Mailing(
        title=form.get("title"),
        text=str(form.data.get("text") or "").replace("\r\n", "\n"),
        audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT if form.get("snapshot") else Mailing.AUDIENCE_MODE_OPEN,
        semantics=Mailing.SEMANTICS_AT_MOST_ONCE if form.get("at_most_once") else Mailing.SEMANTICS_AT_LEAST_ONCE,
        max_rate=form.decimal("max_rate"),
        endpoint=form.get("endpoint"),
        important=bool(form.get("important")),
        labels=form.pairs("labels"),
    )
    priority, attempts = form.whole("priority"), form.whole("max_attempts")
    if not -(2**31) <= priority < 2**31 or not 0 <= attempts < 2**31:
        form.errors["priority" if attempts < 2**31 else "max_attempts"] = "is out of range"
    else:
        mailing.priority = priority
        mailing.retry.max_attempts = attempts
    if form.get("filter_text"):
        mailing.filter_text = form.get("filter_text")
    else:
        mailing.filter.CopyFrom(_filter_of(form))
    _read_times(mailing, form, viewer)
    return mailing


def fields_of(mailing: Mailing, viewer: Viewer) -> dict[str, str]:
    """Return the fields of the form that would create such a mailing again, without its times."""
    return {
        "title": mailing.title,
        "text": mailing.text,
        "tags": ", ".join(mailing.filter.tags),
        "timezones": ", ".join(mailing.filter.timezones),
        "operator_codes": ", ".join(mailing.filter.operator_codes),
        "attributes": "\n".join(f"{name}={value}" for name, value in sorted(mailing.filter.attributes.items())),
        "client_ids": ", ".join(map(str, mailing.filter.client_ids)),
        "endpoint": mailing.endpoint,
        "max_rate": f"{mailing.max_rate:g}" if mailing.max_rate else "",
        "priority": str(mailing.priority or ""),
        "max_attempts": str(mailing.retry.max_attempts or ""),
        "labels": "\n".join(f"{name}={value}" for name, value in sorted(mailing.labels.items())),
        "snapshot": "1" if mailing.audience_mode == Mailing.AUDIENCE_MODE_SNAPSHOT else "",
        "at_most_once": "1" if mailing.semantics == Mailing.SEMANTICS_AT_MOST_ONCE else "",
        "important": "1" if mailing.important else "",
    }


def _filter_of(form: Form) -> ClientFilter:
    ids = []
    for word in form.words("client_ids"):
        if not word.isdecimal() or len(word) > 18:
            form.errors["client_ids"] = f"{word[:40]!r} is no id"
        else:
            ids.append(int(word))
    return ClientFilter(
        tags=[one.strip() for one in form.get("tags").split(",") if one.strip()],
        timezones=form.words("timezones"),
        operator_codes=form.words("operator_codes"),
        attributes=form.pairs("attributes"),
        client_ids=ids,
    )


def _read_times(mailing: Mailing, form: Form, viewer: Viewer) -> None:
    for name, target in (("start", mailing.start_time), ("end", mailing.end_time)):
        if form.get(name):
            try:
                target.FromDatetime(viewer.parse_time(form.get(name)))
            except ValueError:
                form.errors[name] = "must be a date and a time"


async def _previewed(visit: Visit, mailing: Mailing) -> PreviewMailingResponse:
    request = PreviewMailingRequest(mailing=mailing, samples=SAMPLES)
    return await visit.call(visit.service.mailings.PreviewMailing, request)


def _again(
    visit: Visit,
    form: Form,
    found: PreviewMailingResponse | None = None,
    mailing: Mailing | None = None,
    status: int = 422,
    sent: object = None,
) -> Response:
    given = {name: value for name, value in form.data.items() if isinstance(value, str)}
    return _page(visit, given, form.get("request_id") or str(uuid4()), form.errors, found, mailing, status, sent)


def _page(
    visit: Visit,
    given: dict[str, str],
    request_id: str,
    errors: dict[str, str] | None = None,
    found: PreviewMailingResponse | None = None,
    mailing: Mailing | None = None,
    status: int = 200,
    sent: object = None,
) -> Response:
    return visit.page(
        "new_mailing.html", status, given=given, request_id=request_id, errors=errors or {}, preview=found,
        mailing=mailing, sent=sent, live="", part={},
    )  # fmt: skip
