"""The daily mail, over a real mail server: what it says, and that it is sent once."""

from __future__ import annotations

import asyncio
import csv
import io
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest
import trustme

from dispatcher.model.states import Reason, Status
from server.domain.daily_report import ReportTimes
from server.reports import DailyMail, MailPlan, MailServer
from server.storage.daily_reports import DailyReportStore, ReportQueue
from server.storage.database import Database
from tests.support.mail import Mailbox, free_port, serving_mail, zone_at

TO = ["ops@example.com", "boss@example.com"]


@pytest.fixture
async def box() -> Mailbox:
    return Mailbox()


@pytest.fixture
async def port(box: Mailbox) -> AsyncIterator[int]:
    async with serving_mail(box) as port:
        yield port


def times(hour: int = 9) -> ReportTimes:
    """Return the times of a zone whose clocks show this hour now; the report is due there at eight."""
    return ReportTimes(time(8), ZoneInfo(zone_at(hour)))


def daily(pool: asyncpg.Pool, port: int, hour: int = 9, **server: object) -> DailyMail:
    given = MailServer("127.0.0.1", port, **{"tls": "off"} | server)  # type: ignore[arg-type]
    plan, database = MailPlan(times(hour), "mailing@example.com", TO, given), Database(pool)
    return DailyMail(plan, DailyReportStore(database, plan.times), ReportQueue(database, uuid4()))


async def state(pool: asyncpg.Pool) -> tuple[int, str]:
    row = await pool.fetchrow("SELECT state, last_error FROM daily_reports ORDER BY day DESC LIMIT 1")
    return row["state"], row["last_error"]


async def events(pool: asyncpg.Pool) -> list[tuple[str, int]]:
    rows = await pool.fetch("SELECT event, level FROM log WHERE event LIKE 'report.%' ORDER BY no")
    return [(row["event"], row["level"]) for row in rows]


async def add_mailing(pool: asyncpg.Pool, number: int, title: str, started: datetime, endpoint: str = "") -> None:
    await pool.execute(
        "INSERT INTO mailings (id, title, text, starts_at, state, audience_mode, semantics, max_attempts, "
        "initial_backoff, max_backoff, endpoint, created_at) "
        "VALUES ($1, $2, 'x', $3, 2, 1, 1, 5, '1 s', '5 min', $4, $3)",
        number,
        title,
        started,
        endpoint,
    )


async def count(
    pool: asyncpg.Pool, mailing: int, status: Status, reason: Reason, n: int, first: datetime, last: datetime
) -> None:
    await pool.execute(
        "INSERT INTO mailing_counts (bucket, mailing_id, status, reason, n, first_at, last_at) "
        "VALUES (1, $1, $2, $3, $4, $5, $6)",
        mailing,
        status,
        reason,
        n,
        first,
        last,
    )


async def delivered(pool: asyncpg.Pool, mailing: int, n: int, at: datetime) -> None:
    await pool.execute(
        "INSERT INTO mailing_figures (bucket, mailing_id, kind, key, n) VALUES (1, $1, 3, $2, $3)",
        mailing,
        int(at.timestamp() // 60),
        n,
    )


async def a_day(pool: asyncpg.Pool) -> None:
    """Two mailings of yesterday, of which one goes on since the day before, and one of today."""
    begins, ends = times().bounds(times().yesterday(datetime.now(UTC)))
    hour = timedelta(hours=1)
    await add_mailing(pool, 1, "=Sum(1)", begins + hour)
    await delivered(pool, 1, 900, begins + 2 * hour)
    await delivered(pool, 1, 40, ends + hour)
    await count(pool, 1, Status.FAILED, Reason.REFUSED, 60, begins + hour, begins + 3 * hour)
    await add_mailing(pool, 2, "<b>Long</b>", begins - 30 * hour, "backup")
    await delivered(pool, 2, 5, begins - hour)
    await delivered(pool, 2, 7, begins + 5 * hour)
    await count(pool, 2, Status.FAILED, Reason.REFUSED, 3, begins - hour, ends + hour)
    for client, at in ((1, begins - hour), (17, begins + hour), (33, ends + timedelta(minutes=1))):
        await pool.execute(
            "INSERT INTO messages (bucket, mailing_id, client_id, status, reason, attempts, created_at, due_at, "
            "settled_at) VALUES (1, 2, $1, 3, $2, 1, $3, $3, $3)",
            client,
            Reason.REFUSED,
            at,
        )
    await add_mailing(pool, 3, "Today", ends + hour)
    await delivered(pool, 3, 1000, ends + hour)


def part(mail: EmailMessage, kind: str) -> str:
    found = mail.get_body((kind,))
    assert found is not None
    return str(found.get_content())


async def test_the_mail_has_the_numbers_of_the_day_before(pool: asyncpg.Pool, box: Mailbox, port: int) -> None:
    await a_day(pool)
    await daily(pool, port).poll()
    [mail] = box.mails
    assert box.recipients == [TO]
    assert str(mail["Subject"]).endswith("907 delivered, 61 failed")
    text, page = part(mail, "plain"), part(mail, "html")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "1 =Sum(1) 900 60 0 0 0 0" in lines
    assert "2 <b>Long</b> 7 1 0 0 0 0" in lines
    assert "default 900 60 0 0 0 0" in lines
    assert "backup 7 1 0 0 0 0" in lines
    assert "refused failed 61" in lines
    assert "- Mailing 1 '=Sum(1)': 60 of 960 messages failed (6%)." in lines
    assert "Today" not in text
    assert "&lt;b&gt;Long&lt;/b&gt;" in page
    assert "<b>Long" not in page
    assert "<h3>By hour</h3>" in page
    [attached] = mail.iter_attachments()
    rows = list(csv.DictReader(io.StringIO(attached.get_content())))
    assert [(row["title"], row["endpoint"], row["delivered"], row["failed"]) for row in rows] == [
        ("'=Sum(1)", "default", "900", "60"),
        ("<b>Long</b>", "backup", "7", "1"),
    ]
    assert await events(pool) == [("report.sent", 2)]


async def test_a_day_without_messages_says_so(pool: asyncpg.Pool, box: Mailbox, port: int) -> None:
    await daily(pool, port).poll()
    assert "No message ended on that day." in part(box.mails[0], "plain")
    assert "No message ended on that day." in part(box.mails[0], "html")


async def test_several_replicas_send_one_mail(pool: asyncpg.Pool, box: Mailbox, port: int) -> None:
    """Fails when a report is taken without looking who has it."""
    replicas = [daily(pool, port) for _ in range(4)]
    box.open.clear()
    polls = [asyncio.create_task(one.poll()) for one in replicas]
    await box.begun.wait()
    await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
    box.open.set()
    await asyncio.gather(*polls)
    for one in replicas:
        assert await one.poll() > 3600
    assert len(box.mails) == 1
    assert await state(pool) == (3, "")


async def test_a_mail_goes_out_encrypted_and_authenticated(pool: asyncpg.Pool, box: Mailbox, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "password").write_text("secret\n")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    options: dict[str, Any] = {"auth_required": True, "authenticator": box.authenticate}
    known: dict[str, Any] = {"tls": "starttls", "ca_file": tmp_path / "ca.pem"}
    async with serving_mail(box, context=context, **options) as port:
        # Without the authority nothing is said, without the password nothing is taken.
        await daily(pool, port, tls="starttls").poll()
        assert "certificate" in (await state(pool))[1].lower()
        await pool.execute("UPDATE daily_reports SET next_try_at = now()")
        await daily(pool, port, **known).poll()
        assert "530" in (await state(pool))[1]
        await pool.execute("UPDATE daily_reports SET next_try_at = now()")
        assert not box.mails
        await daily(pool, port, **known, user="mailing", password_file=tmp_path / "password").poll()
    assert len(box.mails) == 1
    assert box.users == ["mailing"]


async def test_refused_recipients_keep_no_mail_from_the_others(pool: asyncpg.Pool, box: Mailbox, port: int) -> None:
    box.refused = {TO[0]}
    await daily(pool, port).poll()
    assert box.recipients == [[TO[1]]]
    details = await pool.fetchval("SELECT details ->> 'refused' FROM log WHERE event = 'report.sent' AND level = 3")
    assert details == f"{TO[0]}: 550 no such mailbox"


async def test_a_mail_that_nobody_takes_is_tried_again(pool: asyncpg.Pool, box: Mailbox, port: int) -> None:
    box.refused = set(TO)
    sending = daily(pool, port)
    assert await sending.poll() == 60
    assert "every recipient" in (await state(pool))[1]
    assert await sending.poll() == 30
    await pool.execute("UPDATE daily_reports SET next_try_at = now()")
    box.refused, box.answer = set(), "554 polls like spam"
    assert await sending.poll() == 120
    assert "554 polls like spam" in (await state(pool))[1]
    await pool.execute("UPDATE daily_reports SET next_try_at = now()")
    box.answer = ""
    await sending.poll()
    assert len(box.mails) == 1


async def test_a_mail_server_that_is_away_is_tried_until_noon(pool: asyncpg.Pool, box: Mailbox) -> None:
    port = free_port()
    morning = daily(pool, port, hour=9)
    assert await morning.poll() == 60
    assert not morning.failed
    day = await pool.fetchval("SELECT day FROM daily_reports")
    afternoon = daily(pool, port, hour=13)
    await pool.execute("UPDATE daily_reports SET day = $1", times(13).yesterday(datetime.now(UTC)))
    for one in (afternoon, daily(pool, port, hour=13)):
        assert await one.poll() > 3600
        assert one.failed
    assert await events(pool) == [("report.failed", 4)], day
    text = await pool.fetchval("SELECT text FROM log WHERE event = 'report.failed'")
    assert "cannot be reached" in text
    async with serving_mail(box, port):
        await afternoon.poll()
    assert not box.mails


async def test_a_new_service_does_not_send_the_report_of_a_day_before_it(
    pool: asyncpg.Pool, box: Mailbox, port: int
) -> None:
    sending = daily(pool, port, hour=13)
    assert await sending.poll() > 3600
    assert not sending.failed
    assert not box.mails


async def test_a_report_that_fell_into_an_outage_is_failed(pool: asyncpg.Pool, box: Mailbox, port: int) -> None:
    await pool.execute("INSERT INTO daily_reports (day, state) VALUES ('2026-01-01', 3)")
    sending = daily(pool, port, hour=13)
    await sending.poll()
    assert sending.failed
    assert await events(pool) == [("report.failed", 4)]


async def test_a_mail_that_was_handed_over_is_never_sent_again(pool: asyncpg.Pool, box: Mailbox, port: int) -> None:
    """Fails when the report is noted as handed over after the mail left, or is taken by another replica then."""
    box.open.clear()
    dying = asyncio.create_task(daily(pool, port).poll())
    await box.begun.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    other = daily(pool, port)
    assert await other.poll() == 30
    await pool.execute("UPDATE daily_reports SET held_until = now()")
    await other.poll()
    assert other.failed
    assert len(box.mails) == 1
    assert await state(pool) == (5, "")
    assert await events(pool) == [("report.failed", 4)]


def test_a_report_is_due_at_its_time_also_when_clocks_change() -> None:
    berlin = ReportTimes(time(2, 30), ZoneInfo("Europe/Berlin"))
    before, due = datetime(2026, 3, 29, 0, 59, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert (berlin.day_due(before).day, berlin.day_due(due).day) == (27, 28)
    day = berlin.day_due(due)
    assert berlin.due_at(day) == due
    assert berlin.given_up_at(day) == datetime(2026, 3, 29, 10, 0, tzinfo=UTC)
    begins, ends = berlin.bounds(day + timedelta(days=1))
    assert ends - begins == timedelta(hours=23)
    late = ReportTimes(time(18), ZoneInfo("UTC"))
    assert late.given_up_at(day) == late.due_at(day) + timedelta(hours=1)
