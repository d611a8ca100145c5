"""`mailing watch`: live progress of one mailing, until it ends.

A live view on a terminal, plain lines elsewhere, with --json a document per state. It goes on
after a short outage of the service, and its exit status says whether every message was delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mailing import MailingClient, MailingError
from mailing.cli.failures import CommandError, ExitStatus
from mailing.cli.session import Session, command
from mailing.cli.terminal.mailing_view import UNDELIVERED, MailingView, Reason, stays_open
from mailing.cli.terminal.output import document_of, print_line
from mailing.cli.terminal.rates import span
from mailing.cli.terminal.tables import enum_name, moment, new_table
from mailing.cli.terminal.words import reason_words
from mailing.errors import mailing_errors
from mailing.v1.mailing_pb2 import Mailing, MailingProgress
from mailing.v1.mailing_service_pb2 import GetMailingReportRequest, GetMailingReportResponse

POLL_SECONDS = 0.25
PATIENCE_SECONDS = 30.0
"""How long the service may be unreachable, after it once answered, before the watch ends."""
LINE_SECONDS = 2.0
"""Minimum time between two plain lines, except for the last one."""

REASONS_SECONDS = 2.0
"""Minimum time between two requests for the reasons."""

_FINAL = (Mailing.STATE_COMPLETED, Mailing.STATE_CANCELLED)
_OUTAGE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_STATUSES = ("delivered", "failed", "expired", "cancelled", "skipped", "unknown", "pending")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "watch")(watch)


def watch(
    session: Session,
    mailing_id: Annotated[int, typer.Argument(metavar="ID", help="The mailing's id.")],
    until_sent: Annotated[
        bool,
        typer.Option("--until-sent", help="End when nothing is pending, even if the mailing stays open."),
    ] = False,
) -> None:
    """Show a mailing's progress until it ends. With --json each line is a document, the last one final.

    The exit status is 0 when every message was delivered and 4 when some were not.
    """
    with session.connected() as client:
        mailing = follow(session, client, mailing_id, until_sent=until_sent, documents=session.json)
    if not session.json:
        session.out.print(statistics(mailing))
    undelivered = mailing.progress.total - mailing.progress.delivered
    if undelivered:
        raise CommandError(
            f"{undelivered:,} of {mailing.progress.total:,} messages were not delivered", ExitStatus.UNDELIVERED
        )


def follow(
    session: Session, client: MailingClient, mailing_id: int, *, until_sent: bool = False, documents: bool = False
) -> Mailing:
    """Show a mailing until it ends, or with `until_sent` until nothing is pending; return its last state.

    With `documents` each state is written as a line of JSON.
    """
    with _documents(session) if documents else _display(session, client) as show:
        for mailing in _states(client, mailing_id):
            ended = mailing.state in _FINAL or (until_sent and settled(mailing.progress))
            show(mailing, ended)
            if ended:
                return mailing
    raise CommandError("the service ended the watch before the mailing ended")


def settled(progress: MailingProgress) -> bool:
    """Return whether every matching client has a message and none of them is pending."""
    return progress.expanded and not progress.pending


def statistics(mailing: Mailing) -> Table:
    """Return the final statistics: the number of messages by status."""
    progress = mailing.progress
    table = new_table("status", ">messages", ">share")
    for status in _STATUSES:
        count = getattr(progress, status)
        if count or status == "delivered":
            table.add_row(status, f"{count:,}", f"{count / progress.total:.1%}" if progress.total else "")
    table.add_section()
    table.add_row("total", f"{progress.total:,}", "")
    table.add_row("attempts", f"{progress.attempts:,}", "")
    if seconds := _delivery_seconds(progress):
        table.add_row("seconds", f"{seconds:.2f}", "")
        table.add_row("messages/s", f"{progress.delivered / seconds:,.0f}", "")
    return table


def _delivery_seconds(progress: MailingProgress) -> float:
    if not progress.HasField("first_delivery_time"):
        return 0.0
    return (progress.last_delivery_time.ToNanoseconds() - progress.first_delivery_time.ToNanoseconds()) / 1e9


def _states(client: MailingClient, mailing_id: int) -> Iterator[Mailing]:
    """Yield the mailing as it changes; poll an older service, which has no streams."""
    try:
        yield from client.watch_mailing(mailing_id, patience=PATIENCE_SECONDS)
    except MailingError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        yield from _polled(client, mailing_id)


def _polled(client: MailingClient, mailing_id: int) -> Iterator[Mailing]:
    """Yield the mailing about every POLL_SECONDS; after the first answer, wait out an outage."""
    yield client.get_mailing(mailing_id)
    answered_at = time.monotonic()
    while True:
        time.sleep(POLL_SECONDS)
        try:
            mailing = client.get_mailing(mailing_id)
        except MailingError as error:
            if error.code not in _OUTAGE or time.monotonic() - answered_at > PATIENCE_SECONDS:
                raise
        else:
            answered_at = time.monotonic()
            yield mailing


class Reasons:
    """Why messages were not delivered; asks the service again when there are more of them."""

    def __init__(self, client: MailingClient) -> None:
        self._client = client
        self._supported = True
        self._asked_at = float("-inf")
        self._known_for = 0
        self._reasons: list[Reason] = []

    def of(self, mailing: Mailing) -> Sequence[Reason]:
        """Return the last known reasons, the most frequent first; none when the service has no reports."""
        undelivered = sum(getattr(mailing.progress, status) for status in UNDELIVERED)
        due = time.monotonic() - self._asked_at >= REASONS_SECONDS
        if self._supported and due and undelivered > self._known_for:
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
        except MailingError as error:  # the watch continues without
            self._supported = error.code is not grpc.StatusCode.UNIMPLEMENTED
            return
        self._reasons = sorted(_reasons(report), key=lambda reason: -reason[1])


def _reasons(report: GetMailingReportResponse) -> list[Reason]:
    return [(reason_words(enum_name(one, "reason")), one.count) for one in report.reasons if one.reason]


@contextmanager
def _documents(session: Session) -> Iterator[Callable[[Mailing, bool], None]]:
    def show(mailing: Mailing, ended: bool) -> None:
        print_line(session, document_of(mailing))

    yield show


@contextmanager
def _display(session: Session, client: MailingClient) -> Iterator[Callable[[Mailing, bool], None]]:
    """Choose how progress is shown; with --json none of it may go to standard output."""
    console = session.err if session.json else session.out
    if console.is_terminal:
        view, reasons = MailingView(console), Reasons(client)
        with Live(console=console, transient=True, auto_refresh=False) as live:
            yield lambda mailing, ended: live.update(view.draw(mailing, reasons.of(mailing)), refresh=True)
    elif session.json:
        yield lambda mailing, ended: None
    else:
        yield _lines(console)


def _lines(console: Console) -> Callable[[Mailing, bool], None]:
    printed = ""
    printed_at = float("-inf")

    def show(mailing: Mailing, ended: bool) -> None:
        nonlocal printed, printed_at
        line = f"{enum_name(mailing, 'state').lower()}: {progress_line(mailing)}"
        if line != printed and (ended or time.monotonic() - printed_at >= LINE_SECONDS):
            console.print(line)
            console.file.flush()
            printed, printed_at = line, time.monotonic()

    return show


def progress_line(mailing: Mailing) -> str:
    """Return the progress in one line: counts, rate and time left."""
    if mailing.state == Mailing.STATE_SCHEDULED:
        return f"starts {moment(mailing.start_time)}"
    progress = mailing.progress
    if not (progress.total or progress.expanded):
        return "the audience is being recorded"
    total = f"{progress.total:,}" + ("" if progress.expanded else "+")
    parts = [f"{progress.delivered:,} of {total} delivered"]
    undelivered = progress.total - progress.pending - progress.delivered
    if undelivered:
        parts.append(f"{undelivered:,} undelivered")
    if progress.rate_per_second and progress.pending:
        parts.append(f"{progress.rate_per_second:,.0f}/s")
    if progress.HasField("estimated_finish_time"):
        parts.append(f"{span(progress.estimated_finish_time.seconds - time.time())} left")
    return ", ".join([*parts, *stays_open(mailing)])
