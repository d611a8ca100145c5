"""The daily report as the settings say: when, to whom, through which mail server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time
from uuid import uuid4
from zoneinfo import ZoneInfo

from dispatcher.tasks import in_background
from server.config import ConfigError, Settings, split_address
from server.config.types import addresses_of
from server.domain.daily_report import ReportTimes
from server.observability.metrics.samples import Samples
from server.reports import DailyMail, MailPlan, MailServer, send_now
from server.reports.page import text_of
from server.storage.daily_reports import DailyReportStore, ReportQueue
from server.storage.database import Database


def report_times(settings: Settings) -> ReportTimes:
    """Return when reports are due."""
    return ReportTimes(time.fromisoformat(settings.report_at), ZoneInfo(settings.report_timezone))


def mail_plan(settings: Settings, recipients: str) -> MailPlan:
    """Return how the mail is sent to these recipients. Raise ConfigError."""
    try:
        to = addresses_of(recipients)
    except ValueError as error:
        raise ConfigError([f"The recipient {str(error)[:80]!r} should be an e-mail address."]) from None
    if not to or settings.report_sender is None or settings.report_smtp is None:
        raise ConfigError(
            ["MAILING_REPORT_SENDER and MAILING_REPORT_SMTP should be set, and somebody should get the mail."]
        )
    host, port = split_address(settings.report_smtp)
    server = MailServer(
        host,
        port,
        tls=settings.report_smtp_tls,
        user=settings.report_smtp_user,
        password_file=settings.report_smtp_password_file,
        ca_file=settings.report_smtp_ca_file,
    )
    return MailPlan(report_times(settings), settings.report_sender, to, server)


@asynccontextmanager
async def sending_reports(settings: Settings, database: Database) -> AsyncIterator[Callable[[], Samples]]:
    """Send the daily mail inside the block, if somebody is to get it, and yield its metrics."""
    if not settings.report_recipients:
        yield dict
        return
    plan = mail_plan(settings, settings.report_recipients)
    mail = DailyMail(plan, DailyReportStore(database, plan.times), ReportQueue(database, uuid4()))

    def samples() -> Samples:
        return {"mailing_report_failed": {(): float(mail.failed)}}

    async with in_background(mail.run(), "daily report"):
        yield samples


async def show_report(
    settings: Settings, database: Database, day: date | None, to: str, show: Callable[[str], object]
) -> None:
    """Show the report of a day, yesterday's without one, or send it to `to` and show the outcome.

    Raise ConfigError, MailRefused and DatabaseUnavailable.
    """
    times = report_times(settings)
    plan = mail_plan(settings, to) if to else None
    wanted = day or times.yesterday(datetime.now(UTC))
    report = await DailyReportStore(database, times).read(wanted)
    if plan is None:
        show(text_of(report))
        return
    refused = await send_now(plan, report)
    show(f"The report of {wanted} was sent to {len(plan.recipients) - len(refused)} recipients.")
    for one, why in refused.items():
        show(f"Refused: {one}: {why}")
