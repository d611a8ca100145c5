"""The screen of `mailing top`: mailings, endpoints and dispatchers, within 80 columns and the given height."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mailing.cli.terminal.rates import RateHistory, rate, span, sparkline
from mailing.cli.terminal.tables import cell, enum_name
from mailing.v1.admin_service_pb2 import WatchDispatchResponse
from mailing.v1.dispatch_pb2 import EndpointStatus
from mailing.v1.mailing_pb2 import Mailing

KEYS = "↑↓ choose  p pause or resume the mailing  P stop or resume all sending  ? help"
HELP = (
    ("↑ ↓, k j", "choose a mailing"),
    ("p", "pause the chosen mailing, or resume it; pausing asks first"),
    ("P", "stop all sending on all dispatchers, or resume it; stopping asks first"),
    ("?", "show or leave this help"),
    ("q, Ctrl-C", "quit; mailings go on"),
    ("", ""),
    ("OF", "messages of the mailing; + while its audience is still being recorded"),
    ("LEFT", "expected time until all are sent"),
    ("BREAKER", "closed: messages are sent; open: nothing is sent until a probe succeeds"),
    ("FAILED", "share of the last requests that failed"),
    ("BACKLOG", "messages that are due and not yet taken by a dispatcher"),
)
"""What `?` shows: keys, and what the columns mean."""

_MOST_REPLICAS = 6
_MOST_ENDPOINTS = 5
_BREAKER_STYLES = {EndpointStatus.BREAKER_OPEN: "bold red", EndpointStatus.BREAKER_HALF_OPEN: "yellow"}
_STATE_STYLES = {Mailing.STATE_RUNNING: "green", Mailing.STATE_PAUSED: "yellow"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment: `problem` says why there is no `dispatch`, `outage` why nothing new comes."""

    dispatch: WatchDispatchResponse | None = None
    mailings: Sequence[Mailing] = ()
    problem: str = ""
    outage: str = ""
    rates: RateHistory = field(default_factory=RateHistory)

    @property
    def rate(self) -> float:
        """Deliveries per second, of all replicas or else of all mailings."""
        if self.dispatch is not None:
            return sum(one.rate_per_second for one in self.dispatch.replicas)
        return sum(one.progress.rate_per_second for one in self.mailings if one.progress.pending)


class TopView:
    """Draws one snapshot after the other."""

    def __init__(self, console: Console, address: str, keys: bool) -> None:
        self._console = console
        self._address = address
        self._keys = keys

    def draw(self, snapshot: Snapshot, chosen: int, notice: str) -> RenderableType:
        """Return the screen; `chosen` is the id of a mailing, `notice` a sentence for the last line."""
        above: list[RenderableType] = [self._head(snapshot)]
        below: list[RenderableType] = []
        used = 1
        if snapshot.dispatch is not None and snapshot.dispatch.settings.paused:
            above.append(Text("ALL SENDING IS STOPPED", style="bold white on red"))
            used += 1
        if snapshot.dispatch is not None:
            tables = [_endpoints(snapshot.dispatch), _replicas(snapshot.dispatch)]
            below += tables
            used += sum(table.row_count + 1 for table in tables)
        elif snapshot.problem:
            below.append(Text(snapshot.problem, style="dim"))
            used += 1
        room = max(self._console.height - used - 3, 1)
        return Group(*above, _mailings(snapshot.mailings, chosen, room), *below, self._foot(snapshot, notice))

    def help(self, snapshot: Snapshot) -> RenderableType:
        """Return the screen that explains keys and columns."""
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, meaning in HELP:
            table.add_row(name, meaning)
        return Group(self._head(snapshot), Text(), table, Text(), Text("any key: back", style="dim"))

    def _head(self, snapshot: Snapshot) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append("mailing top", style="bold").append(f"  {self._address}  {now()}  ")
        text.append(f"{rate(snapshot.rate)}/s ", style="bold")
        text.append(sparkline(snapshot.rates.values()[-24:], plain=self._console.options.ascii_only), style="cyan")
        return text

    def _foot(self, snapshot: Snapshot, notice: str) -> Text:
        if snapshot.outage:
            return Text(
                f"no answer, retrying: {_line(snapshot.outage)}", style="red", no_wrap=True, overflow="ellipsis"
            )
        keys = KEYS if self._keys else "Ctrl-C to quit"
        return Text(notice or keys, style="yellow" if notice else "dim", no_wrap=True, overflow="ellipsis")


def _line(text: str) -> str:
    return " ".join(cell(text).plain.split())


def _table(*columns: tuple[str, int]) -> Table:
    """Return a table; a column is a heading, right-aligned after a leading '>', and its width, 0 for what is left."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=True)
    for name, width in columns:
        justify = "right" if name.startswith(">") else "left"
        table.add_column(
            name.removeprefix(">"),
            justify=justify,  # type: ignore[arg-type]
            width=width or None,
            ratio=None if width else 1,
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _milliseconds(duration: Duration) -> str:
    return f"{duration.ToNanoseconds() / 1e6:,.0f} ms"


def _replicas(dispatch: WatchDispatchResponse) -> Table:
    columns = (">IN FLIGHT", 9), (">LIMIT", 6), (">BACKLOG", 8), (">RATE", 7), (">P50", 7), (">P99", 8), ("POLL", 14)
    table = _table(("DISPATCHER", 0), *columns)
    for one in dispatch.replicas[:_MOST_REPLICAS]:
        table.add_row(
            cell(f"{one.host}:{one.process_id}"),
            f"{one.in_flight:,}",
            f"{one.concurrency_limit:,}",
            f"{one.backlog:,}",
            rate(one.rate_per_second),
            _milliseconds(one.latency_p50),
            _milliseconds(one.latency_p99),
            cell(f"{_milliseconds(one.poll_interval)} {one.poll_reason}".strip()),
        )
    if not dispatch.replicas:
        table.add_row(Text("none is alive", style="red"))
    elif more := len(dispatch.replicas) - _MOST_REPLICAS:
        _add_more(table, more)
    return table


def _add_more(table: Table, more: int) -> None:
    if more > 0:
        table.add_row(Text(f"and {more} more", style="dim"))


def _endpoints(dispatch: WatchDispatchResponse) -> Table:
    table = _table(
        ("ENDPOINT", 16), ("BREAKER", 9), (">IN FLIGHT", 9), (">LIMIT", 6), (">FAILED", 6), ("LAST ERROR", 0)
    )
    found = _merged(status for one in dispatch.replicas for status in one.endpoints)
    for status in found[:_MOST_ENDPOINTS]:
        table.add_row(
            cell(status.name),
            Text(enum_name(status, "breaker").lower().replace("_", " "), style=_BREAKER_STYLES.get(status.breaker, "")),
            f"{status.in_flight:,}",
            f"{status.concurrency_limit:,}",
            f"{status.failure_ratio:.0%}",
            cell(_line(status.last_error)),
        )
    _add_more(table, len(found) - _MOST_ENDPOINTS)
    return table


def _merged(statuses: Iterable[EndpointStatus]) -> list[EndpointStatus]:
    """Return one status per endpoint for all replicas: the sum of requests, the worst of everything else."""
    found: dict[str, EndpointStatus] = {}
    for status in statuses:
        if (one := found.get(status.name)) is None:
            one = found[status.name] = EndpointStatus()
            one.CopyFrom(status)
            continue
        one.in_flight += status.in_flight
        one.concurrency_limit += status.concurrency_limit
        one.failure_ratio = max(one.failure_ratio, status.failure_ratio)
        one.last_error = one.last_error or status.last_error
        if status.breaker in _BREAKER_STYLES and one.breaker != EndpointStatus.BREAKER_OPEN:
            one.breaker = status.breaker
    return [found[name] for name in sorted(found)]


def _mailings(mailings: Iterable[Mailing], chosen: int, room: int) -> Table:
    """Return as many mailings as fit, the chosen one among them."""
    table = _table(
        ("", 1),
        (">MAILING", 7),
        ("STATE", 9),
        (">DELIVERED", 11),
        (">OF", 11),
        (">RATE", 7),
        (">LEFT", 7),
        ("TITLE", 0),
    )
    rows = list(mailings)
    place = next((number for number, one in enumerate(rows) if one.id == chosen), 0)
    first = max(0, min(place - room // 2, len(rows) - room))
    for one in rows[first : first + room]:
        progress = one.progress
        finish = progress.estimated_finish_time.seconds - time.time()
        table.add_row(
            ">" if one.id == chosen else "",
            str(one.id),
            Text(enum_name(one, "state").lower(), style=_STATE_STYLES.get(one.state, "")),
            f"{progress.delivered:,}",
            f"{progress.total:,}{'' if progress.expanded else '+'}",
            rate(progress.rate_per_second if progress.pending else 0.0),
            span(finish) if progress.HasField("estimated_finish_time") else "",
            cell(_line(one.title or one.text)),
            style="reverse" if one.id == chosen else "",
        )
    if not rows:
        table.add_row("", "none", "", "", "", "", "", Text("create one with `mailing mailings create`", style="dim"))
    return table


def now() -> str:
    """Return the local time of day."""
    return time.strftime("%H:%M:%S")
