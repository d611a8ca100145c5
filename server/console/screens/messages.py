"""Messages: by mailing, client, status and phone, and the whole story of one."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.routing import Route

from mailing.errors import MailingError
from mailing.v1.admin_service_pb2 import WatchLogRequest
from mailing.v1.client_service_pb2 import GetClientRequest
from mailing.v1.mailing_service_pb2 import GetMailingRequest
from mailing.v1.message_pb2 import Message
from mailing.v1.message_service_pb2 import GetMessageRequest, ListMessagesRequest
from server.console.forms import Form, change
from server.console.live import Drawings, View, live_page
from server.console.visit import Console, Visit, number_in, redirect, values
from server.console.words import STATUSES, kind_of

PAGE = 50
_BY_KIND = {kind_of(status): status for status in STATUSES}


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    return [
        *live_page(console, drawings, "/messages", view),
        *live_page(console, drawings, "/messages/{message_id:int}", view_one),
        change(console, "/messages/find", find),
    ]


async def view(visit: Visit) -> View:
    """Show one page of the messages that the address asks for."""
    asked = visit.request.query_params
    statuses = [Message.Status.ValueType(_BY_KIND[one]) for one in values(visit.request, "status") if one in _BY_KIND]
    request = ListMessagesRequest(
        mailing_id=number_in(visit.request, "mailing"),
        client_id=number_in(visit.request, "client"),
        statuses=statuses,
        page_size=PAGE,
        page_token=asked.get("page", ""),
    )
    context = {
        "asked": {name: asked.get(name, "") for name in ("mailing", "client")},
        "statuses": [(kind_of(status), status, status in statuses) for status in STATUSES],
        "first": not request.page_token,
        "filters": urlencode([(name, value) for name, value in asked.multi_items() if name != "page" and value]),
    }
    if not (request.mailing_id or request.client_id):
        # The API lists messages of something; the page says so instead of an error.
        return View("messages.html", {}, ("message_list",), context | {"messages": None})
    return View("messages.html", {"messages": visit.reads.messages(request)}, ("message_list",), context)


async def find(visit: Visit, form: Form) -> Response:
    """Go to the message with an id, or to the messages of the client with a phone."""
    text = form.get("q")
    digits = "".join(one for one in text if one.isdigit())
    if digits == text and len(digits) < 19:
        try:
            found = await visit.call(visit.service.messages.GetMessage, GetMessageRequest(message_id=int(digits or 0)))
            return redirect(f"/messages/{found.message.id}")
        except MailingError:
            pass  # then it may be a phone
    if not visit.may.clients_read:
        listed = await visit.call(visit.service.messages.ListMessages, ListMessagesRequest(phone=digits, page_size=1))
        return redirect(f"/messages?client={listed.messages[0].client_id}" if listed.messages else "/messages")
    client = (await visit.call(visit.service.clients.GetClient, GetClientRequest(phone=digits))).client
    return redirect(f"/messages?client={client.id}")


async def view_one(visit: Visit) -> View:
    """Show a message with its mailing, its client, its attempts and its log."""
    message_id = number_in(visit.request, "message_id")
    message = (await visit.call(visit.service.messages.GetMessage, GetMessageRequest(message_id=message_id))).message
    context: dict[str, object] = {"message_id": message_id, "client": None, "mailing": None, "log": None}
    if visit.may.mailings_read:
        request = GetMailingRequest(mailing_id=message.mailing_id)
        context["mailing"] = await _or_none(visit.call(visit.service.mailings.GetMailing, request), "mailing")
    if visit.may.clients_read:
        wanted = GetClientRequest(client_id=message.client_id)
        context["client"] = await _or_none(visit.call(visit.service.clients.GetClient, wanted), "client")
    reads = {"message": visit.reads.message(message_id), "attempts": visit.reads.attempts(message_id)}
    if visit.may.admin_read:
        del context["log"]
        reads["log"] = visit.reads.log(WatchLogRequest(message_id=message_id))
    return View("message.html", reads, ("message", "attempts", "message_log"), context)


async def _or_none(call: object, name: str) -> object:
    """Return what a call answers; None for what was deleted meanwhile."""
    try:
        return getattr(await call, name)  # type: ignore[misc]
    except MailingError:
        return None
