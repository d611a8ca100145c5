"""The daily mail and a service that is killed: one mail arrives, never two."""

from __future__ import annotations

import asyncio
import subprocess

import asyncpg

from tests.e2e.conftest import SERVER_PROGRAM, environment
from tests.faults.conftest import StartService
from tests.support.eventually import eventually
from tests.support.mail import Mailbox, free_port, serving_mail, zone_at


def settings(port: int) -> dict[str, str]:
    return {
        "MAILING_REPORT_RECIPIENTS": "ops@example.com",
        "MAILING_REPORT_SENDER": "mailing@example.com",
        "MAILING_REPORT_SMTP": f"127.0.0.1:{port}",
        "MAILING_REPORT_SMTP_TLS": "off",
        "MAILING_REPORT_TIMEZONE": zone_at(9),
    }


async def state(pool: asyncpg.Pool) -> int | None:
    found: int | None = await pool.fetchval("SELECT state FROM daily_reports")
    return found


async def test_a_service_killed_as_the_mail_arrives_sends_no_second_one(
    start_service: StartService, pool: asyncpg.Pool
) -> None:
    box = Mailbox()
    box.open.clear()
    async with serving_mail(box) as port:
        first = start_service(**settings(port))
        await box.begun.wait()
        first.kill()
        box.open.set()
        await pool.execute("UPDATE daily_reports SET held_until = now()")
        start_service(**settings(port))
        await eventually(lambda: state(pool), lambda found: found == 5)
    assert len(box.mails) == 1


async def test_two_services_and_a_restart_send_one_mail(start_service: StartService, pool: asyncpg.Pool) -> None:
    box, port = Mailbox(), free_port()
    first, _ = start_service(**settings(port)), start_service(**settings(port))
    await eventually(lambda: pool.fetchval("SELECT tries FROM daily_reports"), lambda tries: tries == 1)
    first.kill()
    await pool.execute("UPDATE daily_reports SET next_try_at = now()")
    async with serving_mail(box, port):
        third = start_service(**settings(port))
        await eventually(lambda: state(pool), lambda found: found == 3)
        assert third.stop() == 0
    assert len(box.mails) == 1


async def test_a_report_is_sent_by_hand_or_printed(database_dsn: str, pool: asyncpg.Pool) -> None:
    async def report(*arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [*SERVER_PROGRAM, "report", "send", *arguments],
            env=environment(MAILING_DSN=database_dsn, **given),
            capture_output=True,
            text=True,
            timeout=60,
        )

    box = Mailbox(refused={"no@example.com"})
    async with serving_mail(box) as port:
        ended = await report("--to", "me@example.com,no@example.com", "--date", "2026-11-28", **settings(port))
    assert (ended.returncode, ended.stdout.splitlines()) == (
        0,
        ["The report of 2026-11-28 was sent to 1 recipients.", "Refused: no@example.com: 550 no such mailbox"],
    )
    assert "2026-11-28" in str(box.mails[0]["Subject"])
    ended = await report("--to", "me@example.com", **settings(port))
    assert ended.returncode == 1
    assert "cannot be reached" in ended.stderr
    printed = await report("--print")
    assert printed.returncode == 0
    assert "No message ended on that day." in printed.stdout
    assert (await report()).returncode == 2
    assert (await report("--to", "nobody", **settings(port))).returncode == 2
    assert (await report("--to", "me@example.com")).returncode == 2
    assert await state(pool) is None
