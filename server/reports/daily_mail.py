"""The daily mail: sent when it is due, by one replica, once.

A replica takes the report in the database before it composes it, and notes there that the mail server gets it before
the mail leaves. So a replica that dies sends nothing twice: until then another one sends it; from then on nobody does,
and it is reported as perhaps sent. What surely did not arrive is tried again until noon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY

from dispatcher.outcome_events import Event, Level
from server.domain.daily_report import DailyReport, ReportState, ReportTimes, pause_after
from server.domain.errors import DatabaseUnavailable
from server.reports.page import csv_of, html_of, subject_of, text_of
from server.reports.smtp import HandedOverElsewhere, MailRefused, MailServer, MailUncertain, send
from server.storage.daily_reports import DailyReportStore, ReportQueue

LONGEST_SLEEP = 3600.0
"""Seconds between two looks, for clocks that are set."""

ELSEWHERE = 30.0
"""Seconds until the next look while another replica sends the report, or its next try waits."""

AWAY = 10.0
"""Seconds until the next look while the database is away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MailPlan:
    """When the mail is sent, by whom, to whom and through which server."""

    times: ReportTimes
    sender: str
    recipients: Sequence[str]
    server: MailServer


class DailyMail:
    """Sends the daily reports for this replica. `failed` means that the last one that was due was not sent."""

    def __init__(self, plan: MailPlan, reports: DailyReportStore, queue: ReportQueue) -> None:
        self._plan = plan
        self._reports = reports
        self._queue = queue
        self.failed = False

    async def run(self) -> None:
        """Send reports until cancelled."""
        while True:
            try:
                wait = await self.poll()
            except DatabaseUnavailable:
                wait = AWAY
            except Exception:
                log.exception("the daily report could not be sent")
                wait = ELSEWHERE
            await asyncio.sleep(min(wait, LONGEST_SLEEP))

    async def poll(self) -> float:
        """Do what there is to do and return in how many seconds to look again. Raise DatabaseUnavailable."""
        times, day = self._plan.times, self._plan.times.day_due(datetime.now(UTC))
        now, state, before = await self._queue.state_of(day)
        if (due := times.day_due(now)) != day:  # the database's clock decides
            day, (now, state, before) = due, await self._queue.state_of(due)
        over = now >= times.given_up_at(day)
        if state in (None, ReportState.TRYING) and not over:
            return await self._try(day)
        if state is ReportState.HANDED_OVER and not await self._abandon(day, state, ReportState.UNKNOWN, _perhaps(day)):
            return ELSEWHERE
        if state is ReportState.TRYING or (state is None and before):
            failed = Event(Level.ERROR, "report.failed", f"The report of {day} could not be sent.")
            if not await self._abandon(day, ReportState.TRYING, ReportState.FAILED, failed):
                return ELSEWHERE
        self.failed = state is not ReportState.SENT and (state is not None or before)
        return max((times.due_at(day + timedelta(days=1)) - now).total_seconds(), 1.0)

    async def _abandon(self, day: date, found: ReportState, state: ReportState, event: Event) -> bool:
        return await self._queue.abandon(day, found, state, event)

    async def _try(self, day: date) -> float:
        """Send a report unless another replica does; return in how many seconds to look again."""
        tries = await self._queue.take(day)
        if tries is None:
            return ELSEWHERE
        try:
            mail = compose(await self._reports.read(day), self._plan.sender, self._plan.recipients)
            plan, handed = self._plan, lambda: self._queue.hand_over(day)
            refused = await send(plan.server, plan.sender, plan.recipients, mail, handed)
        except MailRefused as error:
            wait = pause_after(tries + 1)
            log.warning("the report of %s is tried again in %d s: the mail server: %s", day, wait.seconds, error)
            await self._queue.retry(day, str(error), wait)
            return wait.total_seconds()
        except MailUncertain as error:
            await self._queue.end(day, ReportState.UNKNOWN, str(error), _perhaps(day))
        except HandedOverElsewhere:
            return ELSEWHERE
        else:
            await self._queue.end(day, ReportState.SENT, "", _sent(day, plan.recipients, refused))
        return 0.0


def compose(report: DailyReport, sender: str, recipients: Sequence[str]) -> bytes:
    """Return the mail of a report: plain text, HTML beside it, and the CSV attached.

    Its id is that of the day, so that a mail system can tell one that it gets twice.
    """
    message = EmailMessage(policy=SMTP_POLICY.clone(cte_type="7bit"))
    message["Subject"] = subject_of(report)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Date"] = datetime.now(UTC)
    message["Message-ID"] = f"<report-{report.day}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text_of(report))
    message.add_alternative(html_of(report), subtype="html")
    message.add_attachment(csv_of(report), subtype="csv", filename=f"mailing-{report.day}.csv")
    return message.as_bytes()


async def send_now(plan: MailPlan, report: DailyReport) -> dict[str, str]:
    """Send a report at once, however often it was sent before; return the recipients refused, with the reasons.

    Raise MailRefused, also where it is not known whether the mail arrived.
    """

    async def always() -> bool:
        return True

    try:
        mail = compose(report, plan.sender, plan.recipients)
        return await send(plan.server, plan.sender, plan.recipients, mail, always)
    except MailUncertain as error:
        raise MailRefused(f"it took the mail and did not answer: {error}") from error


def _sent(day: date, recipients: Sequence[str], refused: dict[str, str]) -> Event:
    took = len(recipients) - len(refused)
    text = f"The report of {day} was sent to {took} recipients."
    if not refused:
        return Event(Level.INFO, "report.sent", text)
    names = "; ".join(f"{one}: {why}" for one, why in refused.items())
    return Event(Level.WARNING, "report.sent", f"{text} {len(refused)} were refused.", details={"refused": names})


def _perhaps(day: date) -> Event:
    text = (
        f"It is not known whether the report of {day} was sent: the mail server did not answer. Ask a recipient, "
        "and send it again with `mailing-server report send`."
    )
    return Event(Level.ERROR, "report.failed", text)
