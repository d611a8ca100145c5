"""Clients: search, one client with its story, editing, opting out, deleting, and the export.

Phones are personal: they are searched for with a form that is posted and stand in no address.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from google.protobuf.field_mask_pb2 import FieldMask
from starlette.background import BackgroundTask
from starlette.requests import Request
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
    UpdateClientRequest,
)
from server.console.client_export import exported
from server.console.forms import Form, change, place
from server.console.live import Drawings
from server.console.visit import Console, Visit, begin_visit, number_in, redirect, values

PAGE = 50
_EDITED = ("phone", "operator_code", "tag", "timezone", "receive_window", "attributes")
_NAMES = {"receive_window": "window_start"}


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    path = "/clients/{client_id:int}"
    pages = {"/clients": show_list, "/clients/new": blank, "/clients/export": export, path: show, f"{path}/delete": ask}

    def page(handler: object) -> object:
        async def answer(request: Request) -> Response:
            return await handler(await begin_visit(console, request))  # type: ignore[operator, no-any-return]

        return answer

    return [
        *(Route(one, page(handler), methods=["GET"]) for one, handler in pages.items()),  # type: ignore[arg-type]
        change(console, "/clients/find", find),
        change(console, "/clients/new", create),
        change(console, path, save),
        change(console, f"{path}/opt-out", opt_out),
        change(console, f"{path}/opt-in", opt_in),
        change(console, f"{path}/delete", delete),
    ]


async def show_list(visit: Visit) -> Response:
    """Show one page of the clients that the address asks for."""
    asked = visit.request.query_params
    request = ListClientsRequest(receiving_now=bool(asked.get("now")), page_size=PAGE, page_token=asked.get("page", ""))
    if asked.get("filter"):
        request.filter_text = asked["filter"]
    else:
        request.filter.CopyFrom(filter_of(visit.request))
    problem = ""
    try:
        found = await visit.call(visit.service.clients.ListClients, request)
    except MailingError as error:
        if not error.fields and not asked.get("filter"):
            raise
        found, problem = None, error.message
    filters = urlencode([(name, value) for name, value in asked.multi_items() if name != "page" and value])
    return visit.page(
        "clients.html", found=found, problem=problem, asked=asked, filters=filters, window_times=window_times,
        live="", part={},
    )  # fmt: skip


def filter_of(request: Request) -> ClientFilter:
    """Return the filter that an address describes."""
    return ClientFilter(
        tags=values(request, "tag"), timezones=values(request, "timezone"), operator_codes=values(request, "operator")
    )


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
    given = {name: value for name, value in form.data.items() if isinstance(value, str)}
    return visit.page("client_new.html", 422, given=given, errors=form.errors, live="", part={})


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
    given = {name: value for name, value in form.data.items() if isinstance(value, str)}
    return await _page(visit, stored, given, form.errors, 422)


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
    path = await exported(visit, filter_of(visit.request), visit.request.query_params.get("filter", ""))
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
