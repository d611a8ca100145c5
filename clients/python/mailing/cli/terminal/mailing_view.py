"""The live view of `mailing watch`: progress, rate, reasons and time left, within 80 columns."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mailing.cli.terminal.rates import RateHistory, rate, span, sparkline
from mailing.cli.terminal.tables import cell, enum_name, moment
from mailing.v1.mailing_pb2 import Mailing

UNDELIVERED = ("failed", "expired", "cancelled", "skipped", "unknown")
_SHOWN_REASONS = 5
_WIDEST = 100

Reason = tuple[str, int]
"""Why messages were not delivered, and how many of them."""


class MailingView:
    """Draws one state of a mailing after the other, with the rate of the last seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rates = RateHistory()

    def draw(self, mailing: Mailing, reasons: Sequence[Reason]) -> RenderableType:
        """Return the view of the newest state; `reasons` have the most frequent one first."""
        progress = mailing.progress
        self._rates.add(progress.rate_per_second if progress.pending else 0.0)
        parts: list[RenderableType] = [_title(mailing), self._bar(mailing), _counts(mailing)]
        if mailing.state != Mailing.STATE_SCHEDULED:
            parts.append(self._rate(mailing))
        parts += [Text(words, style="cyan", no_wrap=True, overflow="ellipsis") for words in stays_open(mailing)]
        if undelivered := _undelivered(mailing):
            parts.append(undelivered)
        parts += [
            Text.assemble(("  ", ""), f"{count:>11,}  ", cell(reason), style="dim", no_wrap=True, overflow="ellipsis")
            for reason, count in reasons[:_SHOWN_REASONS]
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
    found = f"{progress.delivered:,} of {total} delivered, {progress.pending:,} pending"
    receipts = [(name, getattr(progress.receipts, name)) for name in ("received", "read", "undelivered")]
    return Text(", ".join([found, *(f"{count:,} {name}" for name, count in receipts if count)]))


def stays_open(mailing: Mailing) -> list[str]:
    """Return the words for a mailing that has nothing left to send and waits for new clients; none for another."""
    waits = mailing.state == Mailing.STATE_RUNNING and mailing.audience_mode == Mailing.AUDIENCE_MODE_OPEN
    if not waits or mailing.progress.pending or not mailing.progress.expanded:
        return []
    return [f"all sent; stays open for new clients until {moment(mailing.end_time) or 'it is cancelled'}"]


def _undelivered(mailing: Mailing) -> Text | None:
    counts = [(name, getattr(mailing.progress, name)) for name in UNDELIVERED]
    found = [f"{count:,} {name}" for name, count in counts if count]
    return Text(", ".join(found), style="red", no_wrap=True, overflow="ellipsis") if found else None
