"""Schedules with their next times, and one of them with the mailings that it made; each with its verbs."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response
from starlette.routing import Route

from mailing.v1.mailing_service_pb2 import ListMailingsRequest
from mailing.v1.schedule_service_pb2 import (
    DeleteScheduleRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    PauseScheduleRequest,
    ResumeScheduleRequest,
    TriggerScheduleRequest,
)
from server.console.forms import Form, change
from server.console.live import Drawings, View, live_page
from server.console.visit import Console, Visit, number_in, page_route, redirect

PAGE = 50
SHOWN = 20
"""Mailings that the page of a schedule shows."""


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of these screens."""
    path = "/schedules/{schedule_id:int}"
    verbs = {"pause": pause, "resume": resume, "trigger": trigger, "delete": delete}
    return [
        *live_page(console, drawings, "/schedules", view),
        *live_page(console, drawings, path, view_one),
        page_route(console, f"{path}/delete", ask),
        *(change(console, f"{path}/{verb}", handler) for verb, handler in verbs.items()),
    ]


async def view(visit: Visit) -> View:
    """Show one page of schedules, the newest first."""
    request = ListSchedulesRequest(page_size=PAGE, page_token=visit.request.query_params.get("page", ""))
    context = {"first": not request.page_token}
    return View("schedules.html", {"schedules": visit.reads.schedules(request)}, ("schedule_list",), context)


async def view_one(visit: Visit) -> View:
    """Show a schedule with the mailings that it made last."""
    schedule_id = number_in(visit.request, "schedule_id")
    history = ListMailingsRequest(schedule_id=schedule_id, page_size=SHOWN)
    reads = {"schedule": visit.reads.schedule(schedule_id), "mailings": visit.reads.mailings(history)}
    parts = ("schedule_head", "schedule_verbs", "schedule_mailings")
    return View("schedule.html", reads, parts, {"schedule_id": schedule_id})


async def pause(visit: Visit, form: Form) -> Response:
    """Stop making mailings."""
    request = PauseScheduleRequest(schedule_id=number_in(visit.request, "schedule_id"))
    await visit.call(visit.service.schedules.PauseSchedule, request)
    return _back(visit, form)


async def resume(visit: Visit, form: Form) -> Response:
    """Make mailings again."""
    request = ResumeScheduleRequest(schedule_id=number_in(visit.request, "schedule_id"))
    await visit.call(visit.service.schedules.ResumeSchedule, request)
    return _back(visit, form)


async def trigger(visit: Visit, form: Form) -> Response:
    """Make a mailing now and show it; a form that is sent twice makes one."""
    schedule_id = number_in(visit.request, "schedule_id")
    request = TriggerScheduleRequest(schedule_id=schedule_id, request_id=form.get("request_id"))
    made = await visit.call(visit.service.schedules.TriggerSchedule, request)
    return redirect(f"/mailings/{made.mailing.id}")


async def ask(visit: Visit) -> Response:
    """Name what deleting a schedule does."""
    request = GetScheduleRequest(schedule_id=number_in(visit.request, "schedule_id"))
    schedule = (await visit.call(visit.service.schedules.GetSchedule, request)).schedule
    return visit.page("schedule_delete.html", schedule=schedule, live="", part={})


async def delete(visit: Visit, form: Form) -> Response:
    """Delete a schedule; the mailings that it made stay."""
    request = DeleteScheduleRequest(schedule_id=number_in(visit.request, "schedule_id"))
    await visit.call(visit.service.schedules.DeleteSchedule, request)
    return redirect("/schedules")


def _back(visit: Visit, form: Form) -> Response:
    """Return to the page from which the form was sent: that of the schedule, or the list."""
    return redirect(f"/schedules/{number_in(visit.request, 'schedule_id')}" if form.get("one") else "/schedules")
