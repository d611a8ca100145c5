"""The daily report as HTML, as plain text and as CSV.

Mail programs show neither scripts nor SVG, so the chart is a table of bars. Everything that people wrote is escaped,
and a cell of the CSV that a spreadsheet would take for a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from html import escape
from zoneinfo import ZoneInfo

from dispatcher.model.states import Status
from server.domain.daily_report import ENDED, DailyReport, Hour

_BAR_HEIGHT = 60
_BLOCKS = " ▁▂▃▄▅▆▇█"
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_CELL = "padding:2px 8px;border-bottom:1px solid #ddd"
_NUMBERS = f"{_CELL};text-align:right"


def subject_of(report: DailyReport) -> str:
    """Return the subject of the mail."""
    delivered, failed = report.total(Status.DELIVERED), report.total(Status.FAILED)
    return f"Mailing, {report.day}: {delivered:,} delivered, {failed:,} failed"


def text_of(report: DailyReport) -> str:
    """Return the report as plain text."""
    parts = [
        subject_of(report),
        f"The day is that of {report.zone}.",
        "",
        *_listed("Needs attention", report.attention()),
    ]
    hours = _hours(report)
    if report.hours:
        most = max(hour.delivered + hour.failed for hour in hours) or 1
        bars = "".join(_BLOCKS[-(-(hour.delivered + hour.failed) * 8 // most)] for hour in hours)
        parts += ["By hour, delivered and failed", f"|{bars}|", ""]
    for title, header, rows in _tables(report):
        parts += [title, *_columns([header, *rows]), ""]
    if not report.mailings:
        parts.append("No message ended on that day.")
    return "\n".join(parts).rstrip() + "\n"


def html_of(report: DailyReport) -> str:
    """Return the report as a page of HTML."""
    attention = "".join(f"<li>{escape(one)}</li>" for one in report.attention())
    parts = [
        f'<h2 style="margin:0">{escape(subject_of(report))}</h2><p>The day is that of {escape(report.zone)}.</p>',
        f"<h3>Needs attention</h3><ul>{attention}</ul>" if attention else "",
        _chart(report) if report.hours else "",
        *(f"<h3>{title}</h3>{_html_table(header, rows)}" for title, header, rows in _tables(report)),
        "" if report.mailings else "<p>No message ended on that day.</p>",
    ]
    return f'<!DOCTYPE html><html><body style="font-family:sans-serif;font-size:14px">{"".join(parts)}</body></html>'


def csv_of(report: DailyReport) -> str:
    """Return the numbers of each mailing as CSV."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["day", "mailing_id", "title", "endpoint", "state", *(one.name.lower() for one in ENDED)])
    for one in report.mailings:
        numbers = (one.total(status) for status in ENDED)
        writer.writerow([report.day, one.id, _harmless(one.title), _harmless(one.endpoint), one.state.name, *numbers])
    return file.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULAS) else text


Table = tuple[str, Sequence[str], list[Sequence[str]]]


def _tables(report: DailyReport) -> Iterable[Table]:
    """Yield each table of the report: its title, its header and its rows."""
    if not report.mailings:
        return
    statuses = [status.name.lower() for status in ENDED]
    mailings = [(str(one.id), one.title, *(f"{one.total(status):,}" for status in ENDED)) for one in report.mailings]
    yield "Mailings", ("id", "title", *statuses), [*mailings]
    endpoints = report.by_endpoint().items()
    yield "Endpoints", ("endpoint", *statuses), [(name, *(f"{row[one]:,}" for one in ENDED)) for name, row in endpoints]
    reasons = [(reason.name.lower(), status.name.lower(), f"{n:,}") for status, reason, n in report.by_reason()]
    if reasons:
        yield "Not delivered, by reason", ("reason", "status", "messages"), [*reasons]


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *(f"- {line}" for line in lines), ""] if lines else []


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines whose columns stand below one another; numbers stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_aligned(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if cell.replace(",", "").isdecimal() else cell.ljust(width)


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{_CELL};text-align:left">{escape(cell)}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
    return f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def _html_cell(cell: str) -> str:
    style = _NUMBERS if cell.replace(",", "").isdecimal() else _CELL
    return f'<td style="{style}">{escape(cell)}</td>'


def _hours(report: DailyReport) -> list[Hour]:
    """Return every hour between the first and the last one in which anything happened."""
    known = {hour.begins_at: hour for hour in report.hours}
    found, at = [], min(known, default=None)
    while at is not None and at <= max(known):
        found.append(known.get(at, Hour(at, 0, 0)))
        at += timedelta(hours=1)
    return found


def _chart(report: DailyReport) -> str:
    hours, zone = _hours(report), ZoneInfo(report.zone)
    most = max(hour.delivered + hour.failed for hour in hours) or 1
    bars = "".join(f'<td style="vertical-align:bottom;padding:0 1px">{_bar(hour, most)}</td>' for hour in hours)
    labels = "".join(
        f'<td style="font-size:10px;text-align:center">{_label(hour.begins_at, zone)}</td>' for hour in hours
    )
    return f"<h3>By hour</h3><table><tr>{bars}</tr><tr>{labels}</tr></table><p>Green: delivered. Red: failed.</p>"


def _bar(hour: Hour, most: int) -> str:
    parts = ((hour.failed, "#c0392b"), (hour.delivered, "#27ae60"))
    return "".join(
        f'<div style="width:14px;height:{max(1, n * _BAR_HEIGHT // most)}px;background:{color}"></div>'
        for n, color in parts
        if n
    )


def _label(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%H}"
