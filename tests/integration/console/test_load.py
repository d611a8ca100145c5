"""What open consoles cost the service: memory, updates, and the wait for the first page with many mailings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import grpc
import pytest

from mailing.builders import new_client, new_mailing
from mailing.v1.client_service_pb2 import ImportClientsRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_service_pb2 import CreateMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from tests.support.console import Browser, update_with
from tests.support.processes import serving

PAGES = 100
MANY = 10_000
MB = 1024


def memory(pid: int) -> float:
    """Return the memory of a process in MB, what it shares counted in part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("Pss:")[2].split()[0]) / MB


@pytest.fixture
async def served(database_dsn: str) -> AsyncIterator[tuple[int, Browser, grpc.aio.Channel]]:
    """Yield a service in a process of its own: its id, a browser at its console, and a channel."""
    # Nobody reads what the process writes: a full pipe would hold it up.
    settings = {"MAILING_CONSOLE_LISTEN": "127.0.0.1:0", "MAILING_LOG_LEVEL": "error"}
    with serving(MAILING_DSN=database_dsn, **settings) as (process, address):
        assert process.stdout is not None
        browser = Browser(process.stdout.readline().removeprefix("console on ").strip())
        async with grpc.aio.insecure_channel(address) as channel:
            yield process.pid, browser, channel
        await browser.client.aclose()


async def test_a_hundred_open_pages_cost_little_memory(served: tuple[int, Browser, grpc.aio.Channel]) -> None:
    """Fails when each page reads for itself, or keeps what it has sent. Measured: 0.2 MB a page."""
    pid, browser, channel = served
    request = CreateMailingRequest(mailing=new_mailing("Hello", title="Winter", start="+1h"))
    mailing_id = (await MailingServiceStub(channel).CreateMailing(request)).mailing.id
    async with browser.live(f"/mailings/{mailing_id}/live") as updates:
        await update_with(updates, "Winter")
    before = memory(pid)
    async with AsyncExitStack() as stack:
        for number in range(PAGES):
            path = f"/mailings/{mailing_id}/live" if number % 2 else "/live"
            updates = await stack.enter_async_context(browser.live(path))
            await update_with(updates, "Winter")
        assert memory(pid) - before < 100


async def test_a_page_is_repainted_four_times_a_second_at_most(served: tuple[int, Browser, grpc.aio.Channel]) -> None:
    """Nothing is delivered without an endpoint, so the log is what changes: hundreds of entries a second."""
    _, browser, channel = served
    clients = ClientServiceStub(channel)

    async def busy() -> None:
        for number in range(10_000):
            client = new_client(f"7{number:010}", "UTC")
            await clients.ImportClients(iter([ImportClientsRequest(clients=[client])]))

    task = asyncio.create_task(busy())
    async with browser.live("/log/live") as updates:
        await update_with(updates, "imported")
        times = [time.monotonic()]
        async for _ in updates:
            times.append(time.monotonic())
            if times[-1] - times[0] > 2:
                break
    task.cancel()
    assert 3 <= len(times) - 1 <= 4 * (times[-1] - times[0]) + 1


async def test_the_overview_is_there_at_once_with_ten_thousand_mailings(pool: asyncpg.Pool, browser: Browser) -> None:
    """The best of several, since other tests run beside this one."""
    await pool.execute(
        """INSERT INTO mailings (id, title, text, starts_at, state, audience_mode, semantics, max_attempts,
                                initial_backoff, max_backoff)
           SELECT n, 'Mailing ' || n, 'Hello', now() + interval '1 hour', 1, 1, 1, 3, '1 s', '1 min'
           FROM generate_series(1, $1::bigint) n""",
        MANY,
    )
    waits = []
    for _ in range(5):
        began = time.monotonic()
        answer = await browser.get("/")
        waits.append(time.monotonic() - began)
        assert "Mailing 10000" in answer.text
    assert min(waits) < 0.2
