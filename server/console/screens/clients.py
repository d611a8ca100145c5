"""Clients: search, one client with its story, editing, opting out, deleting, and the export.

Phones are personal: they are searched for with a form that is posted and stand in no address, also as part of a
filter. Other filters do, so that a link shows a colleague the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from google.protobuf.field_mask_pb2 import FieldMask
from starlette.background import BackgroundTask
from starlette.datastructures import QueryParams
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from mailing.builders import new_window, window_times
from mailing.errors import MailingError
from mailing.v1.client_pb2 import Client, ClientFilter
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    DeleteClientRequest,
    GetClientRequest,
    GetClientStoryRequest,
    GetClientStoryResponse,
    ListClientsRequest,
    ListClientsResponse,
    UpdateClientRequest,
)
from server.console.client_export import exported
from server.console.forms import Form, change, place
from server.console.live import Drawings
from server.console.visit import Console, Visit, number_in, page_route, redirect

PAGE = 50
_ASKED = ("tag", "timezone", "operator", "filter", "now")
"""What a list of clients may be asked for."""

_EDITED = ("phone", "operator_code", "tag", "timezone", "receive_window", "attributes")
_NAMES = {"receive_window": "window_start"}


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    path = "/clients/{client_id:int}"
    pages = {"/clients": show_list, "/clients/new": blank, "/clients/export": export, path: show, f"{path}/delete": ask}
    return [
        *(page_route(console, one, handler) for one, handler in pages.items()),
        change(console, "/clients", choose),
        change(console, "/clients/find", find),
        change(console, "/clients/export", export_chosen),
        change(console, "/clients/new", create),
        change(console, path, save),
        change(console, f"{path}/opt-out", opt_out),
        change(console, f"{path}/opt-in", opt_in),
        change(console, f"{path}/delete", delete),
    ]


async def show_list(visit: Visit) -> Response:
    """Show one page of the clients that the address asks for."""
    asked = visit.request.query_params
    if not names_phones(asked.get("filter", "")):
        return await _list(visit, asked)
    problem = visit.text("A filter with phones stays out of addresses: write it into the form.")
    return _shown(visit, QueryParams(), None, problem, 400)


async def choose(visit: Visit, form: Form) -> Response:
    """Lead to the address of a list, which can be sent to a colleague; with phones in it answer with the list."""
    asked = QueryParams([(name, form.get(name)) for name in (*_ASKED, "page") if form.get(name)])
    if names_phones(form.get("filter")):
        return await _list(visit, asked, posted=True)
    return redirect(f"/clients?{asked}" if asked else "/clients")


async def _list(visit: Visit, asked: QueryParams, posted: bool = False) -> Response:
    request = ListClientsRequest(receiving_now=bool(asked.get("now")), page_size=PAGE, page_token=asked.get("page", ""))
    if asked.get("filter"):
        request.filter_text = asked["filter"]
    else:
        request.filter.CopyFrom(filter_of(asked))
    try:
        found = await visit.call(visit.service.clients.ListClients, request)
    except MailingError as error:
        if not error.fields and not asked.get("filter"):
            raise
        return _shown(visit, asked, None, error.message, posted=posted)
    return _shown(visit, asked, found, posted=posted)


def _shown(
    visit: Visit,
    asked: QueryParams,
    found: ListClientsResponse | None,
    problem: str = "",
    status: int = 200,
    posted: bool = False,
) -> Response:
    filters = [(name, value) for name, value in asked.multi_items() if name != "page" and value]
    return visit.page(
        "clients.html", status, found=found, problem=problem, asked=asked, filters=urlencode(filters), posted=posted,
        window_times=window_times, live="", part={},
    )  # fmt: skip


def names_phones(filter_text: str) -> bool:
    """Return whether a filter may have a phone in it: that does not stand in an address, nor in logs of those."""
    return bool(re.search(r"\bphone\b|\d{7}", filter_text, re.IGNORECASE))


def filter_of(asked: QueryParams) -> ClientFilter:
    """Return the filter that an address or a form describes."""
    tags, timezones, codes = ([one for one in asked.getlist(name) if one] for name in ("tag", "timezone", "operator"))
    return ClientFilter(tags=tags, timezones=timezones, operator_codes=codes)


async def find(visit: Visit, form: Form) -> Response:
    """Go to the client with a phone or an id."""
    text = form.get("phone")
    digits = "".join(one for one in text if one.isdigit())
    try:
        answer = await visit.call(visit.service.clients.GetClient, GetClientRequest(phone=digits))
    except MailingError as error:
        if digits and digits == text and len(digits) < 19:
            return redirect(f"/clients/{int(digits)}")
        raise error
    return redirect(f"/clients/{answer.client.id}")


async def show(visit: Visit) -> Response:
    """Show a client, their messages and what happened to them."""
    client_id = number_in(visit.request, "client_id")
    client = (await visit.call(visit.service.clients.GetClient, GetClientRequest(client_id=client_id))).client
    return await _page(visit, client, _fields(client), {})


async def blank(visit: Visit) -> Response:
    """Show the form for a new client."""
    return visit.page("client_new.html", given={"timezone": visit.viewer.zone}, errors={}, live="", part={})


async def create(visit: Visit, form: Form) -> Response:
    """Add a client."""
    client = _client_of(form)
    if not form.errors:
        try:
            made = await visit.call(visit.service.clients.CreateClient, CreateClientRequest(client=client))
            return redirect(f"/clients/{made.client.id}")
        except MailingError as error:
            place(error, form, "client.", _NAMES)
    return visit.page("client_new.html", 422, given=form.texts, errors=form.errors, live="", part={})


async def save(visit: Visit, form: Form) -> Response:
    """Change a client, unless somebody else has meanwhile."""
    client = _client_of(form)
    client.id, client.etag = number_in(visit.request, "client_id"), form.get("etag")
    if not form.errors:
        try:
            request = UpdateClientRequest(client=client, update_mask=FieldMask(paths=_EDITED))
            await visit.call(visit.service.clients.UpdateClient, request)
            return redirect(f"/clients/{client.id}")
        except MailingError as error:
            place(error, form, "client.", _NAMES)
    stored = (await visit.call(visit.service.clients.GetClient, GetClientRequest(client_id=client.id))).client
    return await _page(visit, stored, form.texts, form.errors, 422)


async def opt_out(visit: Visit, form: Form) -> Response:
    """Never send to this client again."""
    return await _set_opted_out(visit, True)


async def opt_in(visit: Visit, form: Form) -> Response:
    """Take an opt-out back."""
    return await _set_opted_out(visit, False)


async def ask(visit: Visit) -> Response:
    """Name what deleting a client does."""
    request = GetClientRequest(client_id=number_in(visit.request, "client_id"))
    client = (await visit.call(visit.service.clients.GetClient, request)).client
    return visit.page("client_delete.html", client=client, live="", part={})


async def delete(visit: Visit, form: Form) -> Response:
    """Delete a client."""
    request = DeleteClientRequest(client_id=number_in(visit.request, "client_id"))
    await visit.call(visit.service.clients.DeleteClient, request)
    return redirect("/clients")


async def export(visit: Visit) -> Response:
    """Return the clients that the address asks for as CSV, in the form that the import reads."""
    return await _export(visit, visit.request.query_params)


async def export_chosen(visit: Visit, form: Form) -> Response:
    """Return the clients that a form asks for."""
    return await _export(visit, QueryParams([(name, form.get(name)) for name in _ASKED]))


async def _export(visit: Visit, asked: QueryParams) -> Response:
    path = await exported(visit, filter_of(asked), asked.get("filter", ""))
    headers = {"content-disposition": 'attachment; filename="clients.csv"'}
    return FileResponse(path, 200, headers, "text/csv; charset=utf-8", BackgroundTask(path.unlink))


async def _set_opted_out(visit: Visit, opted_out: bool) -> Response:
    client_id = number_in(visit.request, "client_id")
    client = Client(id=client_id, opted_out=opted_out)
    request = UpdateClientRequest(client=client, update_mask=FieldMask(paths=["opted_out"]))
    await visit.call(visit.service.clients.UpdateClient, request)
    return redirect(f"/clients/{client_id}")


async def _page(
    visit: Visit, client: Client, given: dict[str, str], errors: dict[str, str], status: int = 200
) -> Response:
    story = GetClientStoryResponse()
    if visit.may.messages_read:
        request = GetClientStoryRequest(client_id=client.id, page_token=visit.request.query_params.get("page", ""))
        story = await visit.call(visit.service.clients.GetClientStory, request)
    return visit.page("client.html", status, client=client, story=story, given=given, errors=errors, live="", part={})


def _fields(client: Client) -> dict[str, str]:
    start, end = window_times(client.receive_window) if client.HasField("receive_window") else ("", "")
    return {
        "phone": client.phone,
        "operator_code": client.operator_code,
        "tag": client.tag,
        "timezone": client.timezone,
        "window_start": start,
        "window_end": end,
        "attributes": "\n".join(f"{name}={value}" for name, value in sorted(client.attributes.items())),
    }


def _client_of(form: Form) -> Client:
    """Return the client that a form describes; what cannot be read is noted in the form."""
    client = Client(
        phone="".join(one for one in form.get("phone") if one not in " ()-+."),
        operator_code=form.get("operator_code"),
        tag=form.get("tag"),
        timezone=form.get("timezone"),
        attributes=form.pairs("attributes"),
    )
    start, end = form.get("window_start"), form.get("window_end")
    if start or end:
        try:
            client.receive_window.CopyFrom(new_window(start, end))
        except ValueError as error:
            form.errors["window_start"] = str(error)
    return client
