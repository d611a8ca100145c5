"""The overview: what is sent now, how fast, what waits, how the endpoints are, and the emergency stop."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response
from starlette.routing import Route

from mailing.v1.admin_service_pb2 import PauseDispatchRequest, ResumeDispatchRequest
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import ListMailingsRequest
from server.console.forms import Form, change
from server.console.live import Drawings, View, live_page
from server.console.visit import Console, Visit, redirect

SHOWN = 12
"""Mailings that the overview shows."""

_NOW = (Mailing.STATE_RUNNING, Mailing.STATE_PAUSED)


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    return [
        *live_page(console, drawings, "/", view),
        change(console, "/dispatch/pause", pause),
        change(console, "/dispatch/resume", resume),
    ]


async def view(visit: Visit) -> View:
    """Show what happens now; what needs the scope `admin.read` only to those who have it."""
    now = ListMailingsRequest(states=_NOW, page_size=SHOWN)
    later = ListMailingsRequest(states=[Mailing.STATE_SCHEDULED], page_size=5)
    reads = (
        {"running": visit.reads.mailings(now), "scheduled": visit.reads.mailings(later)}
        if visit.may.mailings_read
        else {}
    )
    if visit.may.admin_read:
        reads |= {"dispatch": visit.reads.dispatch(), "endpoints": visit.reads.endpoints()}
    missing = {name: None for name in ("running", "scheduled", "dispatch", "endpoints") if name not in reads}
    return View("overview.html", reads, ("stop", "figures", "running", "endpoint_list"), missing)


async def pause(visit: Visit, form: Form) -> Response:
    """Stop all sending, everywhere."""
    await visit.call(visit.service.admin.PauseDispatch, PauseDispatchRequest())
    return redirect("/")


async def resume(visit: Visit, form: Form) -> Response:
    """Go on sending."""
    await visit.call(visit.service.admin.ResumeDispatch, ResumeDispatchRequest())
    return redirect("/")
