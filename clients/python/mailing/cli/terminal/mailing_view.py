"""What `mailing watch` shows on a terminal: progress, rate, reasons and time left, within 80 columns."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mailing import MailingClient, MailingError
from mailing.cli.terminal.output import cell, enum_name, moment
from mailing.cli.terminal.rates import RateHistory, rate, span, sparkline
from mailing.errors import mailing_errors
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingReportRequest, GetMailingReportResponse

UNDELIVERED = ("failed", "expired", "cancelled", "skipped", "unknown")
REASONS_SECONDS = 2.0
"""Reasons are asked for no more often than this."""

_SHOWN_REASONS = 5
_WIDEST = 100

Reason = tuple[str, int]


class Reasons:
    """Why messages were not delivered, asked for when there are more of them than before."""

    def __init__(self, client: MailingClient) -> None:
        self._client = client
        self._served = True
        self._asked_at = float("-inf")
        self._known_for = 0
        self._reasons: list[Reason] = []

    def of(self, mailing: Mailing) -> Sequence[Reason]:
        """Returns the reasons as last known, the most frequent first; none where the service does not tell them."""
        undelivered = sum(getattr(mailing.progress, status) for status in UNDELIVERED)
        due = time.monotonic() - self._asked_at >= REASONS_SECONDS
        if self._served and due and undelivered > self._known_for:
            self._ask(mailing.id)
            self._known_for = undelivered
        return self._reasons

    def _ask(self, mailing_id: int) -> None:
        self._asked_at = time.monotonic()
        try:
            with mailing_errors():
                report = self._client.mailings.GetMailingReport(
                    GetMailingReportRequest(mailing_id=mailing_id), timeout=REASONS_SECONDS
                )
        except MailingError as error:  # the watch goes on without
            self._served = error.code is not grpc.StatusCode.UNIMPLEMENTED
            return
        self._reasons = sorted(_reasons(report), key=lambda reason: -reason[1])


def _reasons(report: GetMailingReportResponse) -> list[Reason]:
    return [(enum_name(one, "reason").lower().replace("_", " "), one.count) for one in report.reasons if one.reason]


class MailingView:
    """Draws one mailing after the other state; knows how its rate was before."""

    def __init__(self, console: Console, reasons: Reasons) -> None:
        self._console = console
        self._reasons = reasons
        self._rates = RateHistory()

    def draw(self, mailing: Mailing) -> RenderableType:
        """Returns the picture of a state that has just come."""
        progress = mailing.progress
        self._rates.add(progress.rate_per_second if progress.pending else 0.0)
        parts: list[RenderableType] = [_title(mailing), self._bar(mailing), _counts(mailing)]
        if mailing.state != Mailing.STATE_SCHEDULED:
            parts.append(self._rate(mailing))
        if undelivered := _undelivered(mailing):
            parts.append(undelivered)
        parts += [
            Text.assemble(("  ", ""), f"{count:>11,}  ", cell(reason), style="dim", no_wrap=True, overflow="ellipsis")
            for reason, count in self._reasons.of(mailing)[:_SHOWN_REASONS]
        ]
        return Group(*parts)

    def _bar(self, mailing: Mailing) -> RenderableType:
        progress = mailing.progress
        done = progress.total - progress.pending
        share = done / progress.total if progress.total else 0.0
        line = Table.grid(padding=(0, 1))
        width = min(self._console.width, _WIDEST) - 8
        line.add_row(ProgressBar(progress.total or 1, done, width=width), f"{share:6.1%}")
        return line

    def _rate(self, mailing: Mailing) -> Text:
        progress = mailing.progress
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{rate(progress.rate_per_second if progress.pending else 0)}/s", style="bold")
        text.append(f"  {sparkline(self._rates.values(), plain=self._console.options.ascii_only)}", style="cyan")
        if progress.HasField("estimated_finish_time"):
            text.append(f"  {span(progress.estimated_finish_time.seconds - time.time())} left")
        return text


def _title(mailing: Mailing) -> Text:
    state = enum_name(mailing, "state").lower()
    text = Text(f"Mailing {mailing.id} ", style="bold", no_wrap=True, overflow="ellipsis")
    text.append(state, style={"running": "green", "paused": "yellow", "cancelled": "red"}.get(state, "cyan"))
    if mailing.title:
        text.append("  ").append_text(cell(mailing.title))
    return text


def _counts(mailing: Mailing) -> Text:
    progress = mailing.progress
    if mailing.state == Mailing.STATE_SCHEDULED:
        return Text(f"starts {moment(mailing.start_time)}")
    total = f"{progress.total:,}" + ("" if progress.expanded else "+")
    return Text(f"{progress.delivered:,} of {total} delivered, {progress.pending:,} pending")


def _undelivered(mailing: Mailing) -> Text | None:
    counts = [(name, getattr(mailing.progress, name)) for name in UNDELIVERED]
    found = [f"{count:,} {name}" for name, count in counts if count]
    return Text(", ".join(found), style="red", no_wrap=True, overflow="ellipsis") if found else None
