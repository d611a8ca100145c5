"""What operators look after: endpoints, dispatchers with their settings, the log, and the service itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask
from starlette.responses import Response
from starlette.routing import Route

from mailing.builders import new_dispatch_settings
from mailing.errors import MailingError
from mailing.v1.admin_service_pb2 import ProbeEndpointRequest, UpdateDispatchSettingsRequest, WatchLogRequest
from mailing.v1.log_pb2 import LogEntry
from server.console.forms import Form, change, place
from server.console.live import Drawings, View, live_page, show
from server.console.visit import Console, Visit, number_in, redirect
from server.console.words import LEVELS

SETTINGS = ("poll_min", "poll_max", "recheck_min", "recheck_max", "max_concurrency")


@dataclass(frozen=True, slots=True)
class Probe:
    """How a probe of an endpoint ended, or why there was none."""

    endpoint: str
    attempt: object
    problem: str = ""


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of these screens."""
    return [
        *live_page(console, drawings, "/endpoints", endpoints),
        *live_page(console, drawings, "/dispatchers", dispatchers),
        *live_page(console, drawings, "/log", log),
        *live_page(console, drawings, "/settings", settings),
        change(console, "/endpoints/probe", probe),
        change(console, "/dispatchers/settings", update),
    ]


async def endpoints(visit: Visit) -> View:
    """Show the endpoints: address, limits, breaker, last error."""
    return View("endpoints.html", {"endpoints": visit.reads.endpoints()}, ("endpoint_table",), {"probe": None})


async def probe(visit: Visit, form: Form) -> Response:
    """Send a probe to an endpoint and show how it ended."""
    name = form.get("endpoint")
    try:
        answer = await visit.call(visit.service.admin.ProbeEndpoint, ProbeEndpointRequest(endpoint=name), 60.0)
        result = Probe(name, answer.attempt)
    except MailingError as error:
        if not error.message and not error.fields:
            raise
        result = Probe(name, None, "; ".join(one.description for one in error.fields) or error.message)
    if visit.request.headers.get("hx-request"):
        return visit.page("fragments/probe.html", probe=result)
    return await show(visit, await endpoints(visit), probe=result)


async def dispatchers(visit: Visit) -> View:
    """Show the replicas and the settings that they all follow."""
    return View(
        "dispatchers.html", {"dispatch": visit.reads.dispatch()}, ("replicas", "settings_in_force"), {"errors": {}}
    )


async def update(visit: Visit, form: Form) -> Response:
    """Change the settings that were filled in, at once and everywhere."""
    given = {name: form.get(name) for name in SETTINGS if form.get(name)}
    spans = {name: value for name, value in given.items() if name != "max_concurrency"}
    try:
        changed = new_dispatch_settings(**spans, max_concurrency=form.whole("max_concurrency") or None)
    except ValueError as error:
        form.errors[""] = str(error)
    if not form.errors:
        request = UpdateDispatchSettingsRequest(settings=changed, update_mask=FieldMask(paths=list(given)))
        try:
            await visit.call(visit.service.admin.UpdateDispatchSettings, request)
            return redirect("/dispatchers")
        except MailingError as error:
            place(error, form, "settings.", {})
    return await show(visit, await dispatchers(visit), errors=form.errors)


async def log(visit: Visit) -> View:
    """Show the event log, filtered as the address says."""
    asked = visit.request.query_params
    levels = {LogEntry.Level.Name(level).removeprefix("LEVEL_").lower(): level for level in LEVELS}
    request = WatchLogRequest(
        mailing_id=number_in(visit.request, "mailing"),
        message_id=number_in(visit.request, "message"),
        client_id=number_in(visit.request, "client"),
        level=LogEntry.Level.ValueType(levels.get(asked.get("level", ""), 0)),
    )
    context = {
        "asked": {name: asked.get(name, "") for name in ("mailing", "message", "client")},
        "levels": [(name, level, level == request.level) for name, level in levels.items()],
    }
    return View("log.html", {"log": visit.reads.log(request)}, ("log_entries",), context)


async def settings(visit: Visit) -> View:
    """Show version, schema and the settings in force."""
    context = {"metrics_url": visit.console.options.metrics_url, "address": visit.console.options.address}
    return View("settings.html", {"server": visit.reads.server_info()}, ("server_info",), context)
