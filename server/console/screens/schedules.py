"""Schedules with their next times, each with its verbs; what one made is the list of its mailings."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from starlette.responses import Response
from starlette.routing import Route

from mailing.v1.schedule_service_pb2 import (
    ListSchedulesRequest,
    PauseScheduleRequest,
    ResumeScheduleRequest,
    TriggerScheduleRequest,
)
from server.console.forms import Form, change
from server.console.live import Drawings, View, live_page
from server.console.visit import Console, Visit, number_in, redirect

PAGE = 50


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    verbs = {"pause": pause, "resume": resume, "trigger": trigger}
    return [
        *live_page(console, drawings, "/schedules", view),
        *(change(console, f"/schedules/{{schedule_id:int}}/{verb}", handler) for verb, handler in verbs.items()),
    ]


async def view(visit: Visit) -> View:
    """Show one page of schedules, the newest first."""
    request = ListSchedulesRequest(page_size=PAGE, page_token=visit.request.query_params.get("page", ""))
    context = {"first": not request.page_token, "request_id": str(uuid4())}
    return View("schedules.html", {"schedules": visit.reads.schedules(request)}, ("schedule_list",), context)


async def pause(visit: Visit, form: Form) -> Response:
    """Stop making mailings."""
    request = PauseScheduleRequest(schedule_id=number_in(visit.request, "schedule_id"))
    await visit.call(visit.service.schedules.PauseSchedule, request)
    return redirect("/schedules")


async def resume(visit: Visit, form: Form) -> Response:
    """Make mailings again."""
    request = ResumeScheduleRequest(schedule_id=number_in(visit.request, "schedule_id"))
    await visit.call(visit.service.schedules.ResumeSchedule, request)
    return redirect("/schedules")


async def trigger(visit: Visit, form: Form) -> Response:
    """Make a mailing now and show it; a form that is sent twice makes one."""
    schedule_id = number_in(visit.request, "schedule_id")
    request = TriggerScheduleRequest(schedule_id=schedule_id, request_id=form.get("request_id"))
    made = await visit.call(visit.service.schedules.TriggerSchedule, request)
    return redirect(f"/mailings/{made.mailing.id}")
