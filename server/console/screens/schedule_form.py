"""Writing a schedule: a new one or a change of one, with its next times and whom the first of them would reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from starlette.responses import Response
from starlette.routing import Route

from mailing.builders import new_duration
from mailing.errors import MailingError
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.schedule_pb2 import Schedule
from mailing.v1.schedule_service_pb2 import CreateScheduleRequest, GetScheduleRequest, UpdateScheduleRequest
from server.console.forms import Form, change, place
from server.console.live import Drawings
from server.console.mailing_fields import NAMES, PATHS, TIMES, changed_paths, fields_of, read_mailing, segment_names
from server.console.screens.compose import previewed
from server.console.viewer import form_span
from server.console.visit import Console, Visit, number_in, page_route, redirect
from server.console.words import OVERLAPS

_PATHS: Mapping[str, str] = {
    **{name: f"mailing.{path}" for name, path in PATHS.items() if name not in TIMES},
    **{name: name for name in ("cron", "rrule", "timezone", "end_after", "overlap", "catch_up")},
    "schedule_title": "title",
}
"""The fields of the form, and what each of them is in the API."""

_NAMES = NAMES | {"title": "schedule_title", "mailing.title": "title"}
_OVERLAPS = {Schedule.Overlap.Name(one).removeprefix("OVERLAP_").lower(): one for one in OVERLAPS}


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""
    new, edit = "/schedules/new", "/schedules/{schedule_id:int}/edit"
    return [
        page_route(console, new, blank),
        change(console, new, create),
        page_route(console, edit, stored),
        change(console, edit, save),
        *(change(console, f"{path}/preview", preview) for path in (new, edit)),
    ]


async def blank(visit: Visit) -> Response:
    """Show the form, with what is usual: the audience of each mailing is fixed, so that it comes to its end."""
    usual = {"timezone": visit.viewer.zone, "overlap": "skip", "catch_up": "1h", "snapshot": "1"}
    return await _page(visit, usual)


async def stored(visit: Visit) -> Response:
    """Show the form with what a schedule has."""
    schedule = await _schedule(visit)
    return await _page(visit, await _fields_of(visit, schedule) | {"etag": schedule.etag})


async def create(visit: Visit, form: Form) -> Response:
    """Create the schedule, or show the form again with what is wrong."""
    schedule = _read_schedule(visit, form)
    if form.errors:
        return await _again(visit, form)
    try:
        request = CreateScheduleRequest(schedule=schedule, request_id=form.get("request_id"))
        made = (await visit.call(visit.service.schedules.CreateSchedule, request)).schedule
    except MailingError as error:
        place(error, form, "schedule.", _NAMES)
        return await _again(visit, form)
    return redirect(f"/schedules/{made.id}")


async def save(visit: Visit, form: Form) -> Response:
    """Change what is not in the form as it was, unless somebody else has changed the schedule meanwhile."""
    before = await _schedule(visit)
    paths = changed_paths(await _fields_of(visit, before), form, _PATHS)
    schedule = _read_schedule(visit, form)
    if form.errors:
        return await _again(visit, form)
    schedule.id, schedule.etag = before.id, form.get("etag")
    try:
        if paths:
            request = UpdateScheduleRequest(schedule=schedule, update_mask=FieldMask(paths=paths))
            await visit.call(visit.service.schedules.UpdateSchedule, request)
    except MailingError as error:
        place(error, form, "schedule.", _NAMES)
        return await _again(visit, form)
    return redirect(f"/schedules/{before.id}")


async def preview(visit: Visit, form: Form) -> Response:
    """Show the next times, and whom the mailing of the first one would reach."""
    schedule, found, times = _read_schedule(visit, form), None, Schedule()
    if not form.errors and schedule.mailing.text and schedule.WhichOneof("recurrence"):
        try:
            request = CreateScheduleRequest(schedule=schedule, validate_only=True)
            times = (await visit.call(visit.service.schedules.CreateSchedule, request)).schedule
            found = await previewed(visit, _first_mailing(schedule.mailing, times))
        except MailingError as error:
            place(error, form, "schedule.", _NAMES)
    if visit.request.headers.get("hx-request"):
        return visit.page(
            "fragments/schedule_preview.html", times=times, preview=found, endless=never_over(times), errors=form.errors
        )
    return await _again(visit, form, 200, times=times, preview=found, endless=never_over(times))


def _first_mailing(template: Mailing, times: Schedule) -> Mailing:
    """Return the mailing that the first occurrence would make."""
    mailing = Mailing()
    mailing.CopyFrom(template)
    if times.next_times:
        mailing.start_time.CopyFrom(times.next_times[0])
        if times.HasField("end_after"):
            mailing.end_time.FromSeconds(mailing.start_time.seconds + times.end_after.seconds)
    return mailing


def never_over(schedule: Schedule) -> bool:
    """Return whether the first mailing would go on for ever and keep later ones from being made."""
    waits = schedule.mailing.audience_mode == Mailing.AUDIENCE_MODE_OPEN and not schedule.HasField("end_after")
    return waits and schedule.overlap != Schedule.OVERLAP_ALLOW


def _read_schedule(visit: Visit, form: Form) -> Schedule:
    """Return the schedule that a form describes; what cannot be read is noted in the form."""
    schedule = Schedule(
        title=form.get("schedule_title"),
        mailing=read_mailing(form, visit.viewer),
        timezone=form.get("timezone"),
        end_after=form.read("end_after", new_duration),
        overlap=_OVERLAPS.get(form.get("overlap"), Schedule.OVERLAP_UNSPECIFIED),
        catch_up=form.read("catch_up", new_duration),
    )
    rrule = form.get("rrule").replace("\r\n", "\n")
    if rrule and form.get("cron"):
        form.note("rrule", "leave it empty, or the cron expression: one of them says when")
    elif rrule:
        schedule.rrule = rrule
    elif form.get("cron"):
        schedule.cron = form.get("cron")
    return schedule


async def _fields_of(visit: Visit, schedule: Schedule) -> dict[str, str]:
    """Return the fields of the form that describe a schedule."""
    overlaps = {number: name for name, number in _OVERLAPS.items()}
    return await fields_of(visit, schedule.mailing) | {
        "schedule_title": schedule.title,
        "cron": schedule.cron,
        "rrule": schedule.rrule,
        "timezone": schedule.timezone,
        "end_after": form_span(schedule.end_after) if schedule.HasField("end_after") else "",
        "overlap": overlaps.get(schedule.overlap, ""),
        "catch_up": form_span(schedule.catch_up),
    }


async def _schedule(visit: Visit) -> Schedule:
    request = GetScheduleRequest(schedule_id=number_in(visit.request, "schedule_id"))
    return (await visit.call(visit.service.schedules.GetSchedule, request)).schedule


async def _again(visit: Visit, form: Form, status: int = 422, **found: object) -> Response:
    return await _page(visit, form.texts, status, errors=form.errors, **found)


async def _page(visit: Visit, given: Mapping[str, str], status: int = 200, **found: object) -> Response:
    empty: dict[str, object] = {"errors": {}, "preview": None, "times": Schedule(), "endless": False}
    schedule_id, segments = number_in(visit.request, "schedule_id"), await segment_names(visit)
    overlaps = [(name, visit.text(OVERLAPS[number])) for name, number in _OVERLAPS.items()]
    return visit.page(
        "schedule_form.html", status, given=given, segments=segments, schedule_id=schedule_id, overlaps=overlaps,
        timed=False, live="", part={}, **empty | found,
    )  # fmt: skip
