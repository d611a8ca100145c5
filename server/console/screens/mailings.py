"""All mailings, by state, label and text, each with its live bar."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from starlette.routing import Route

from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import ListMailingsRequest
from server.console.live import Drawings, View, live_page
from server.console.visit import Console, Visit, number_in, values
from server.console.words import STATES, state_kind

PAGE = 50
_BY_KIND = {state_kind(state): state for state in STATES}


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    return live_page(console, drawings, "/mailings", view)


async def view(visit: Visit) -> View:
    """Show one page of the mailings that the address asks for."""
    asked = visit.request.query_params
    states = [_BY_KIND[one] for one in values(visit.request, "state") if one in _BY_KIND]
    request = ListMailingsRequest(
        states=[Mailing.State.ValueType(state) for state in states],
        labels=_labels(asked.get("label", "")),
        query=asked.get("q", "").strip(),
        schedule_id=number_in(visit.request, "schedule"),
        page_size=PAGE,
        page_token=asked.get("page", ""),
    )
    context = {
        "states": [(state_kind(state), state, state in states) for state in STATES],
        "label": asked.get("label", ""),
        "q": asked.get("q", ""),
        "filtered": bool(states or request.labels or request.query or request.schedule_id),
        "first": not request.page_token,
        "filters": urlencode([(name, value) for name, value in asked.multi_items() if name != "page" and value]),
    }
    return View("mailings.html", {"mailings": visit.reads.mailings(request)}, ("mailing_list",), context)


def _labels(text: str) -> dict[str, str]:
    """Return the labels of `name=value` pairs separated by commas; a name alone is one without a value."""
    pairs = (one.partition("=") for one in text.split(",") if one.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}
