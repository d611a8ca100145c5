"""`mailing report`: detailed statistics of one mailing, for a screen of 80 columns.

The timeline is drawn as bars: of blocks on a terminal, of plain characters elsewhere. With --json
everything is printed as the service sent it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mailing.cli.session import Session, command
from mailing.cli.terminal.output import document_of, print_json, print_table
from mailing.cli.terminal.spreadsheet import utc, write_rows
from mailing.cli.terminal.tables import cell, enum_name, new_table
from mailing.cli.terminal.words import reason_words
from mailing.v1.mailing_service_pb2 import GetMailingReportResponse as Report
from mailing.v1.message_pb2 import Message

CHART_ROWS = 20
"""A longer timeline is drawn in coarser slices."""

BAR_WIDTH = 30


class Slice(NamedTuple):
    """What was settled in one row of the chart; `begins` is in seconds since the epoch."""

    begins: int
    delivered: int
    failed: int


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "report")(report)


def report(
    session: Session,
    mailing_id: Annotated[int, typer.Argument(metavar="ID", help="The mailing's id.")],
    csv: Annotated[bool, typer.Option("--csv", help="As a table for spreadsheets.")] = False,
) -> None:
    """Show detailed statistics of a mailing: statuses, reasons, attempts, latency, timeline."""
    with session.connected() as client:
        found = client.get_mailing_report(mailing_id)
    if session.json:
        print_json(session, document_of(found))
        return
    if csv:
        write_rows(session.out.file, _CSV_COLUMNS, _csv_rows(found))
        return
    for part in _parts(found, "#" if _plain(session.out) else "█"):
        print_table(session, part) if isinstance(part, Table) else session.out.print(part)


_CSV_COLUMNS = ("section", "name", "messages", "failed", "milliseconds", "first_time", "last_time")


def _csv_rows(found: Report) -> Iterator[Sequence[str]]:
    """Yield every figure of a report: its section, its name, and what it has of the other columns."""
    progress = found.mailing.progress
    yield (
        "mailing",
        found.mailing.title,
        str(progress.total),
        "",
        "",
        utc(found.mailing.start_time),
        utc(found.mailing.end_time),
    )
    for status in found.statuses:
        times = utc(status.first_time), utc(status.last_time)
        yield "status", enum_name(status, "status").lower(), str(status.count), "", "", *times
    for reason in found.reasons:
        yield "reason", reason_words(enum_name(reason, "reason")), str(reason.count), "", "", "", ""
    for one in found.receipts:
        yield "receipt", receipt_words(one), str(one.count), "", "", "", ""
    for attempts in found.attempts:
        yield "attempts", str(attempts.attempts), str(attempts.count), "", "", "", ""
    if found.HasField("latency_p50"):
        for name, span in (("p50", found.latency_p50), ("p90", found.latency_p90), ("p99", found.latency_p99)):
            yield "latency", name, "", "", f"{span.ToMicroseconds() / 1000:g}", "", ""
    for minute in found.minutes:
        yield "minute", "", str(minute.delivered), str(minute.failed), "", utc(minute.time), ""


def receipt_words(one: Report.ReceiptCount) -> str:
    """Return a receipt and the gateway's code for it."""
    name = Message.Receipt.Name(one.receipt).removeprefix("RECEIPT_").lower()
    return f"{name} {one.code}".strip()


def _plain(console: Console) -> bool:
    return not console.is_terminal or console.options.ascii_only


def _parts(found: Report, block: str) -> Iterator[RenderableType]:
    yield from _headlines(found)
    if found.statuses:
        yield _statuses(found)
    if found.reasons:
        rows = [(reason_words(enum_name(one, "reason")) or "not recorded", one.count) for one in found.reasons]
        yield _shares("not delivered because", rows, block)
    if found.receipts:
        yield _shares("reported by the gateway", [(receipt_words(one), one.count) for one in found.receipts], block)
    if found.attempts:
        rows = [(str(one.attempts), one.count) for one in found.attempts]
        yield _shares("attempts", rows, block)
    if found.HasField("latency_p50"):
        yield _latency(found)
    if found.minutes:
        yield _timeline(found, block)


def _headlines(found: Report) -> Iterator[Text]:
    mailing, progress = found.mailing, found.mailing.progress
    title = f" ({mailing.title})" if mailing.title else ""
    yield cell(f"Mailing {mailing.id}{title} is {enum_name(mailing, 'state').lower()}.")
    total = f"{progress.total:,}" + ("" if progress.expanded or not progress.total else " so far")
    yield cell(f"{progress.delivered:,} of {total} delivered, {progress.attempts:,} attempts.")


def _statuses(found: Report) -> Table:
    total = found.mailing.progress.total
    table = new_table("status", ">messages", ">share", "first", f"last ({_zone(found.statuses[-1].last_time)})")
    for one in found.statuses:
        first, last = _local(one.first_time.seconds), _local(one.last_time.seconds)
        name = enum_name(one, "status").lower()
        table.add_row(
            name, f"{one.count:,}", _share(one.count, total), f"{first:%Y-%m-%d %H:%M:%S}", _until(first, last)
        )
    return table


def _until(first: datetime, last: datetime) -> str:
    """Return the later moment, without the date when that is the same."""
    return f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"


def _shares(what: str, rows: Sequence[tuple[str, int]], block: str) -> Table:
    total, most = sum(count for _, count in rows), max(count for _, count in rows)
    table = new_table(what, ">messages", ">share", "")
    for name, count in rows:
        table.add_row(name, f"{count:,}", _share(count, total), _bar(count, most, block))
    return table


def _latency(found: Report) -> Table:
    table = new_table("latency of successful requests", ">no longer than")
    for share, span in (("50%", found.latency_p50), ("90%", found.latency_p90), ("99%", found.latency_p99)):
        table.add_row(share, _milliseconds(span))
    return table


def _timeline(found: Report, block: str) -> Table:
    seconds = found.step.seconds or 60
    moments = [(one.time.seconds, one.delivered, one.failed) for one in found.minutes]
    length, rows = slices(moments, seconds)
    most = max(row.delivered for row in rows)
    failures = any(row.failed for row in rows)
    table = new_table(f"{_span(length)} starting", ">delivered", *([">failed"] if failures else []), "")
    for row in rows:
        failed = [f"{row.failed:,}"] if failures else []
        table.add_row(
            f"{_local(row.begins):%Y-%m-%d %H:%M}", f"{row.delivered:,}", *failed, _bar(row.delivered, most, block)
        )
    return table


def slices(moments: Iterable[tuple[int, int, int]], step: int) -> tuple[int, list[Slice]]:
    """Return the seconds per row of the chart and its rows, including those in which nothing was settled.

    `moments` are (seconds since the epoch, delivered, failed), ascending, each `step` seconds long.
    """
    known = list(moments)
    first, last = known[0][0], known[-1][0]
    length = step * -(-((last - first) // step + 1) // CHART_ROWS)
    counts = [[0, 0] for _ in range((last - first) // length + 1)]
    for seconds, delivered, failed in known:
        row = counts[(seconds - first) // length]
        row[0] += delivered
        row[1] += failed
    return length, [Slice(first + number * length, *row) for number, row in enumerate(counts)]


def _bar(count: int, most: int, block: str) -> str:
    """Return a bar whose length is the share of `count` in `most`; at least one block unless it is 0."""
    return block * -(-count * BAR_WIDTH // most) if most else ""


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""


def _milliseconds(span: Duration) -> str:
    milliseconds = span.ToMicroseconds() / 1000
    return f"{milliseconds:,.0f} ms" if milliseconds >= 1 else "1 ms"


def _span(seconds: int) -> str:
    if seconds == 60:
        return "minute"
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _local(seconds: int) -> datetime:
    """Return a moment in the time zone of this machine."""
    return datetime.fromtimestamp(seconds, UTC).astimezone()


def _zone(moment: Timestamp) -> str:
    return f"{_local(moment.seconds):%z}"
