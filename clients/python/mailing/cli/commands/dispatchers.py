"""`mailing dispatchers`: the dispatchers that are alive, their runtime settings, and the emergency stop."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from rich.table import Table

from mailing import new_dispatch_settings, new_duration
from mailing.cli.commands.options import read_optional
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.output import document_of, print_json, print_message, print_table
from mailing.cli.terminal.tables import cell, enum_name, facts_table, moment, new_table
from mailing.v1.dispatch_pb2 import DispatchSettings, EndpointStatus, Replica

app = typer.Typer(
    cls=SuggestingGroup,
    no_args_is_help=True,
    help="Show the dispatchers of all replicas, change their settings, stop all sending.",
)

_COLUMNS = ("~replica", ">in flight", ">backlog", ">rate/s", ">p50", ">p99", "~endpoints")
_WIDE = (*_COLUMNS, ">limit", ">mailings", "started")
NAMES = ("poll_min", "poll_max", "recheck_min", "recheck_max", "max_concurrency")

_SPAN = "as 50ms or 10s"
PollMin = Annotated[str | None, typer.Option("--poll-min", metavar="SPAN", help=f"Minimum polling interval, {_SPAN}.")]
PollMax = Annotated[str | None, typer.Option("--poll-max", metavar="SPAN", help="Maximum polling interval.")]
RecheckMin = Annotated[
    str | None,
    typer.Option("--recheck-min", metavar="SPAN", help="Minimum interval between scans for new clients of a mailing."),
]
RecheckMax = Annotated[
    str | None, typer.Option("--recheck-max", metavar="SPAN", help="Maximum interval between such scans.")
]
MaxConcurrency = Annotated[
    int | None,
    typer.Option("--max-concurrency", help="Maximum number of requests in flight, per replica and endpoint."),
]
Reset = Annotated[
    list[str],
    typer.Option(
        "--reset", metavar="NAME", help="Return to the value each replica was started with; repeat for several."
    ),
]


@command(app, "replicas", hidden=True)
@command(app, "list")
def list_dispatchers(session: Session) -> None:
    """List the dispatchers that are alive and what each is doing."""
    with session.connected() as client:
        state = client.get_dispatch()
    if session.json:
        print_json(session, document_of(state))
        return
    columns = _WIDE if session.wide else _COLUMNS
    table = new_table(*columns)
    for replica in state.replicas:
        table.add_row(*map(cell, _row(replica)[: len(columns)]))
    print_table(session, table)
    if state.settings.paused:
        session.err.print("All sending is stopped; `mailing dispatchers resume` starts it again.")


@command(app, "settings")
def settings(
    session: Session,
    poll_min: PollMin = None,
    poll_max: PollMax = None,
    recheck_min: RecheckMin = None,
    recheck_max: RecheckMax = None,
    max_concurrency: MaxConcurrency = None,
    reset: Reset = [],  # noqa: B006 - typer copies the default
) -> None:
    """Show the settings in force on all replicas or, with options, change them now."""
    spans = {"poll_min": poll_min, "poll_max": poll_max, "recheck_min": recheck_min, "recheck_max": recheck_max}
    read = {name: read_optional(f"--{name.replace('_', '-')}", new_duration, text) for name, text in spans.items()}
    wanted = new_dispatch_settings(
        **{name: span.ToTimedelta() for name, span in read.items() if span is not None},
        max_concurrency=max_concurrency,
    )
    chosen = [name for name, span in read.items() if span is not None]
    chosen += ["max_concurrency"] if max_concurrency is not None else []
    resets = [_field(name) for name in reset]
    if both := set(chosen) & set(resets):
        raise typer.BadParameter(f"{sorted(both)[0]} is also given", param_hint="--reset")
    with session.connected() as client:
        fields = [*chosen, *resets]
        found = client.update_dispatch_settings(wanted, fields) if fields else client.get_dispatch().settings
    _show(session, found)


@command(app, "pause")
def pause(session: Session) -> None:
    """Stop all sending on all replicas within a second: the emergency stop."""
    with session.connected() as client:
        _show(session, client.pause_dispatch())


@command(app, "resume")
def resume(session: Session) -> None:
    """Resume sending after `pause`."""
    with session.connected() as client:
        _show(session, client.resume_dispatch())


def register(root: typer.Typer) -> None:
    """Add the group to `root`, and hidden under its former name."""
    root.add_typer(app, name="dispatchers")
    root.add_typer(app, name="dispatch", hidden=True)


def _field(name: str) -> str:
    field = name.replace("-", "_")
    if field not in NAMES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(NAMES)}", param_hint="--reset")
    return field


def _show(session: Session, found: DispatchSettings) -> None:
    print_message(session, found, lambda: _facts(found))


def _facts(found: DispatchSettings) -> Table:
    values = [(name.replace("_", " "), _seconds(getattr(found, name))) for name in NAMES[:4]]
    state = "stopped: nothing is sent" if found.paused else "sending"
    return facts_table([*values, ("max concurrency", str(found.max_concurrency)), ("dispatch", state)])


def _row(replica: Replica) -> list[str]:
    return [
        f"{replica.host}:{replica.process_id}",
        f"{replica.in_flight:,}",
        f"{replica.backlog:,}",
        f"{replica.rate_per_second:,.0f}",
        _seconds(replica.latency_p50) if replica.HasField("latency_p50") else "",
        _seconds(replica.latency_p99) if replica.HasField("latency_p99") else "",
        ", ".join(map(_endpoint, replica.endpoints)),
        f"{replica.concurrency_limit:,}",
        str(len(replica.mailing_ids)),
        moment(replica.start_time),
    ]


def _endpoint(status: EndpointStatus) -> str:
    return f"{status.name} {enum_name(status, 'breaker').lower()}"


def _seconds(span: Duration) -> str:
    seconds = span.ToTimedelta().total_seconds()
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
