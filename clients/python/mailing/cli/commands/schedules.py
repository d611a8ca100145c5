"""`mailing schedules`: mailings that come again and again, and what came of each schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from mailing import MailingClient, new_schedule
from mailing.builders import parse_span
from mailing.cli.commands.mailing_options import TEXT_HELP, NewMailing
from mailing.cli.commands.options import Limit, page_size, read_optional, read_values
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.mailing_table import mailing_table
from mailing.cli.terminal.output import print_json, print_list, print_message
from mailing.cli.terminal.schedule_table import history_row, overlap_name, schedule_table, when
from mailing.cli.terminal.tables import moment
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.schedule_pb2 import Schedule
from mailing.v1.schedule_service_pb2 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    GetScheduleRequest,
    PauseScheduleRequest,
    ResumeScheduleRequest,
    TriggerScheduleRequest,
)

app = typer.Typer(
    cls=SuggestingGroup, no_args_is_help=True, help="Manage schedules: mailings that come again and again."
)

_PANEL = "When"
ScheduleId = Annotated[int, typer.Argument(metavar="ID", help="The schedule's id.")]
RequestId = Annotated[
    str, typer.Option("--request-id", metavar="UUID", help="A call repeated with the same id makes nothing new.")
]


@dataclass(slots=True)
class Recurrence:
    """The options that say when a schedule makes mailings."""

    cron: Annotated[
        str,
        typer.Option("--cron", metavar="EXPRESSION", help="Five fields, as '0 10 * * 1-5'.", rich_help_panel=_PANEL),
    ] = ""
    rrule: Annotated[
        str,
        typer.Option(
            "--rrule",
            metavar="RULE",
            help=r"RFC 5545, as 'DTSTART:20261201T100000\nRRULE:FREQ=MONTHLY;BYDAY=1MO'.",
            rich_help_panel=_PANEL,
        ),
    ] = ""
    zone: Annotated[
        str, typer.Option("--zone", metavar="ZONE", help="The zone of these times.", rich_help_panel=_PANEL)
    ] = ""
    end_after: Annotated[
        str | None,
        typer.Option("--end-after", metavar="SPAN", help="Each mailing ends so late, as 8h.", rich_help_panel=_PANEL),
    ] = None
    overlap: Annotated[
        str | None,
        typer.Option(
            "--overlap",
            metavar="WHAT",
            help="If the mailing before is not over: skip, wait or allow.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    catch_up: Annotated[
        str | None,
        typer.Option(
            "--catch-up",
            metavar="SPAN",
            help="How late a missed occurrence may be made up for, as 1h.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    def schedule(self, mailing: Mailing) -> Schedule:
        """Return the schedule; raise a usage error that names the option."""
        if bool(self.cron) == bool(self.rrule):
            raise typer.BadParameter("one of them", param_hint=["--cron", "--rrule"])
        named = [] if self.overlap is None else [self.overlap]
        overlap = read_values("--overlap", named, Schedule.Overlap.items(), "OVERLAP_")
        return new_schedule(
            mailing,
            self.zone,
            cron=self.cron,
            rrule=self.rrule,
            title=mailing.title,
            end_after=read_optional("--end-after", parse_span, self.end_after),
            overlap=overlap[0] if overlap else Schedule.OVERLAP_UNSPECIFIED,
            catch_up=read_optional("--catch-up", parse_span, self.catch_up),
        )


@command(app, "create")
def create(
    session: Session,
    text: Annotated[str, typer.Option("--text", help=TEXT_HELP)],
    recurrence: Recurrence,
    fields: NewMailing,
    everybody: Annotated[bool, typer.Option("--all", help="To all clients; needed where no filter is given.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check it, and show the next times.")] = False,
    request_id: RequestId = "",
) -> None:
    """Create a schedule, which makes a mailing with this text at each of its times."""
    for option, value in (("--start", fields.start), ("--end", fields.end)):
        if value is not None:
            raise typer.BadParameter("the schedule gives it: see --cron and --end-after", param_hint=option)
    mailing = fields.mailing(text)
    if everybody == mailing.HasField("filter"):
        wrong = "goes together with no filter" if everybody else "without a filter everybody gets it: say so"
        raise typer.BadParameter(wrong, param_hint="--all")
    request = CreateScheduleRequest(schedule=recurrence.schedule(mailing), request_id=request_id, validate_only=check)
    if _never_over(request.schedule):
        session.err.print(
            "Warning: its mailings take in clients for ever, so the first one is never over, and every later one is "
            "skipped. Give --end-after, --snapshot or --overlap allow."
        )
    _print_result(session, lambda client: client.call(client.schedules.CreateSchedule, request).schedule)


def _never_over(schedule: Schedule) -> bool:
    snapshot = schedule.mailing.audience_mode == Mailing.AUDIENCE_MODE_SNAPSHOT
    return not (snapshot or schedule.HasField("end_after") or schedule.overlap == Schedule.OVERLAP_ALLOW)


@command(app, "list")
def list_schedules(session: Session, limit: Limit = 50) -> None:
    """List schedules, newest first, with the next time of each."""
    columns = (">id", "title", "when", "zone", "next", "overlap", ">last mailing")
    with session.connected() as client:
        print_list(session, "schedules", client.list_schedules(page_size=page_size(limit)), limit, columns, _row)


@command(app, "get")
def get(session: Session, schedule_id: ScheduleId) -> None:
    """Show one schedule with its next times."""
    request = GetScheduleRequest(schedule_id=schedule_id)
    _print_result(session, lambda client: client.call(client.schedules.GetSchedule, request).schedule)


@command(app, "pause")
def pause(session: Session, schedule_id: ScheduleId) -> None:
    """Make no mailings until the schedule is resumed; mailings that were made run on."""
    request = PauseScheduleRequest(schedule_id=schedule_id)
    _print_result(session, lambda client: client.call(client.schedules.PauseSchedule, request).schedule)


@command(app, "resume")
def resume(session: Session, schedule_id: ScheduleId) -> None:
    """Make mailings again, from the next time on."""
    request = ResumeScheduleRequest(schedule_id=schedule_id)
    _print_result(session, lambda client: client.call(client.schedules.ResumeSchedule, request).schedule)


@command(app, "trigger")
def trigger(session: Session, schedule_id: ScheduleId, request_id: RequestId = "") -> None:
    """Make a mailing of the schedule now, beside its times, also while it is paused."""
    request = TriggerScheduleRequest(schedule_id=schedule_id, request_id=request_id)
    with session.connected() as client:
        mailing = client.call(client.schedules.TriggerSchedule, request).mailing
    print_message(session, mailing, lambda: mailing_table(mailing))


@command(app, "delete")
def delete(
    session: Session,
    schedule_id: ScheduleId,
    etag: Annotated[str, typer.Option("--etag", help="Fail if the schedule changed since this etag was read.")] = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Succeed when there is no such schedule.")
    ] = False,
) -> None:
    """Delete a schedule; mailings that were made stay and run on."""
    request = DeleteScheduleRequest(schedule_id=schedule_id, etag=etag, allow_missing=allow_missing)
    with session.connected() as client:
        client.call(client.schedules.DeleteSchedule, request)
    if session.json:
        print_json(session, {})
    else:
        session.out.print(f"Schedule {schedule_id} is deleted; its mailings stay.")


@command(app, "history")
def history(session: Session, schedule_id: ScheduleId, limit: Limit = 50) -> None:
    """List the mailings that a schedule made, newest first; what was skipped is in `mailing log`."""
    columns = (">id", "occurrence", "state", ">total", ">delivered", ">failed")
    with session.connected() as client:
        mailings = client.list_mailings(schedule_id=schedule_id, page_size=page_size(limit))
        print_list(session, "mailings", mailings, limit, columns, history_row)


def register(root: typer.Typer) -> None:
    """Add the group to `root`."""
    root.add_typer(app, name="schedules")


def _print_result(session: Session, call: Callable[[MailingClient], Schedule]) -> None:
    with session.connected() as client:
        schedule = call(client)
    print_message(session, schedule, lambda: schedule_table(schedule))


def _row(schedule: Schedule) -> Sequence[str]:
    upcoming = moment(schedule.next_times[0]) if schedule.next_times else "ended"
    return (
        str(schedule.id),
        schedule.title,
        when(schedule),
        schedule.timezone,
        "paused" if schedule.paused else upcoming,
        overlap_name(schedule),
        str(schedule.last_mailing_id or ""),
    )
