"""Live pages: what changes is sent, once for all who watch it, and goes on when the service comes back."""

from __future__ import annotations

from contextlib import AsyncExitStack

import asyncpg
import grpc
from prometheus_client import CollectorRegistry

from mailing.builders import new_mailing
from mailing.v1.mailing_service_pb2 import CancelMailingRequest, CreateMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from tests.support.api import serving
from tests.support.console import Browser, console_of, update_with


async def create(channel: grpc.aio.Channel, **fields: str) -> int:
    request = CreateMailingRequest(mailing=new_mailing("Hello", title="Winter", start="+1h", **fields))  # type: ignore[arg-type]
    return (await MailingServiceStub(channel).CreateMailing(request)).mailing.id


async def test_a_page_sends_what_changes_and_nothing_else(browser: Browser, channel: grpc.aio.Channel) -> None:
    mailing_id = await create(channel)
    async with browser.live(f"/mailings/{mailing_id}/live") as updates:
        first = await update_with(updates, "Winter")
        assert 'hx-target="#notice"' in first
        await MailingServiceStub(channel).CancelMailing(CancelMailingRequest(mailing_id=mailing_id))
        second = await update_with(updates, "Cancelled")
        assert 'hx-target="#notice"' not in second


async def test_many_browsers_share_one_read(pool: asyncpg.Pool) -> None:
    registry = CollectorRegistry()
    async with (
        serving(pool, registry=registry) as (_, address),
        console_of(address) as browser,
        AsyncExitStack() as stack,
    ):
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        mailing_id = await create(channel)
        streams = [await stack.enter_async_context(browser.live(f"/mailings/{mailing_id}/live")) for _ in range(10)]
        for updates in streams:
            await update_with(updates, "Winter")
        labels = {"grpc_service": "mailing.v1.DeliveryService", "grpc_method": "WatchMailing"}
        begun = registry.get_sample_value("grpc_server_started_total", {**labels, "grpc_type": "SERVER_STREAMING"})
        assert begun == 1
        await MailingServiceStub(channel).CancelMailing(CancelMailingRequest(mailing_id=mailing_id))
        for updates in streams:
            await update_with(updates, "Cancelled")


async def test_a_page_goes_on_when_the_service_is_back(pool: asyncpg.Pool, tmp_path: object) -> None:
    """The same address is served again; the page that stayed open says so meanwhile."""
    path = f"unix:{tmp_path}/api"
    async with console_of(path) as browser, AsyncExitStack() as first:
        await first.enter_async_context(serving(pool, path))
        async with grpc.aio.insecure_channel(path) as channel:
            mailing_id = await create(channel)
        async with browser.live("/mailings/live") as updates:
            await update_with(updates, "Winter")
            await first.aclose()
            await update_with(updates, "does not answer at the moment")
            assert (await browser.get("/mailings")).status_code == 200
            async with serving(pool, path):
                async with grpc.aio.insecure_channel(path) as channel:
                    await MailingServiceStub(channel).CancelMailing(CancelMailingRequest(mailing_id=mailing_id))
                back = await update_with(updates, "Cancelled")
                assert "does not answer" not in back
