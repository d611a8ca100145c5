"""The Python client's watches outlive replicas and hand each change on once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import grpc
import pytest

from mailing import MailingClient, MailingError, MessageWatch, aio
from mailing.v1.delivery_service_pb2 import MessageChange, WatchMessagesRequest, WatchMessagesResponse
from mailing.v1.mailing_pb2 import Mailing
from server.api import ApiServer, TransportSettings
from server.runtime.api_settings import ApiSettings
from tests.integration.watch.calls import PATIENCE
from tests.integration.watch.conftest import FAST
from tests.integration.watch.ledger import Work
from tests.integration.watch.proxy import FreezingProxy
from tests.support.api import make_api, serving
from tests.support.ledger import add_clients


async def serve(pool: asyncpg.Pool, address: str) -> tuple[ApiServer, str]:
    server = await make_api(pool, settings=ApiSettings(streams=FAST))
    port = server.bind(address)
    await server.start()
    return server, f"127.0.0.1:{port}"


async def test_a_watch_goes_on_when_its_replica_is_replaced(pool: asyncpg.Pool, work: Work) -> None:
    await add_clients(pool, 320)
    mailing = await work.mailing()
    server, address = await serve(pool, "127.0.0.1:0")
    with MailingClient.connect(address) as client:
        watch = client.watch_messages(mailing.id, from_start=True, patience=PATIENCE)
        states = client.watch_mailing(mailing.id, min_interval=0.05, patience=PATIENCE)
        batches = await work.claim_all(mailing)
        await work.settle(batches[0])
        seen = [await asyncio.to_thread(next, watch)]
        assert (await asyncio.to_thread(next, states)).state == Mailing.STATE_RUNNING
        for number, batch in enumerate(batches[1:], 1):
            if number in (9, 20):
                await server.stop(0.0)
            await work.settle(batch)
            if number in (9, 20):
                server, _ = await serve(pool, address)
        while len(seen) < 320:
            seen.append(await asyncio.to_thread(next, watch))
        await work.complete(mailing)
        last = await asyncio.to_thread(lambda: list(states)[-1])
    assert Counter((change.message_id, int(change.status)) for change in seen) == await work.settled(mailing.id)
    assert (last.state, last.progress.delivered) == (Mailing.STATE_COMPLETED, 320)
    await server.stop(0)


async def test_a_peer_that_fell_silent_is_noticed(
    pool: asyncpg.Pool, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails, by the suite's patience, without pings: the connection stays open and nothing comes any more."""
    monkeypatch.setattr("mailing.channel._PING_AFTER", 0.3)
    monkeypatch.setattr("mailing.channel._PING_TIMEOUT", 0.3)
    await add_clients(pool, 32)
    mailing = await work.mailing()
    batches = await work.claim_all(mailing)
    settings = ApiSettings(streams=FAST, transport=TransportSettings(min_ping_interval=0.01))
    service = serving(pool, settings=settings)
    async with (
        service as (_, direct),
        FreezingProxy(direct) as proxy,
        aio.MailingClient.connect(proxy.address) as client,
    ):
        watch = client.watch_messages(mailing.id, from_start=True)
        await work.settle(batches[0])
        seen = [await anext(watch)]
        proxy.freeze()
        for batch in batches[1:]:
            await work.settle(batch)
        while len(seen) < 32:
            seen.append(await asyncio.wait_for(anext(watch), PATIENCE))
        await watch.close()
    assert len({change.message_id for change in seen}) == 32


async def test_a_position_that_expired_goes_on_with_the_present_state(pool: asyncpg.Pool, work: Work) -> None:
    """Fails when the error is raised, and when the messages are not listed."""
    await add_clients(pool, 32)
    mailing = await work.mailing()
    batches = await work.claim_all(mailing)
    for batch in batches:
        await work.settle(batch)
    settings = ApiSettings(streams=FAST)
    async with serving(pool, settings=settings) as (_, address), aio.MailingClient.connect(address) as client:
        first: Any = await client.delivery.WatchMessages(WatchMessagesRequest(mailing_id=mailing.id)).read()
    await pool.execute("INSERT INTO journal_epochs (epoch) VALUES (gen_random_uuid())")  # as a restored backup has
    async with serving(pool, settings=settings) as (_, address), aio.MailingClient.connect(address) as client:
        watch = client.watch_messages(mailing.id, resume_token=first.resume_token)
        seen = [await asyncio.wait_for(anext(watch), PATIENCE) for _ in range(32)]
        assert Counter((one.message_id, int(one.status)) for one in seen) == await work.settled(mailing.id)


async def test_a_service_that_is_not_there_is_not_waited_for() -> None:
    with MailingClient.connect("127.0.0.1:1") as client:
        for watch in (client.watch_messages(), client.watch_mailing(1)):
            with pytest.raises(MailingError) as caught:
                await asyncio.to_thread(next, watch)
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE


class Away(grpc.RpcError, grpc.Call):
    """The service went away."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return ""

    def initial_metadata(self) -> tuple[()]:
        return ()

    trailing_metadata = initial_metadata

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        return False


class Script:
    """A delivery stub whose streams are given."""

    def __init__(self, *streams: list[WatchMessagesResponse]) -> None:
        self._streams = list(streams)
        self.tokens: list[str] = []

    def WatchMessages(self, request):  # type: ignore[no-untyped-def]
        assert request.include_receipts
        self.tokens.append(request.resume_token)
        return Stream(self._streams.pop(0))


class Stream:
    def __init__(self, responses: list[WatchMessagesResponse]) -> None:
        self._responses = responses

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self._responses
        raise Away

    def cancel(self) -> None:
        pass


def response(token: str, *ids: int) -> WatchMessagesResponse:
    return WatchMessagesResponse(resume_token=token, changes=[MessageChange(message_id=one) for one in ids])


def test_what_a_resume_repeats_is_handed_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailing.calls.FIRST_PAUSE", 0.0)
    script = Script(
        [response("a", 1), response("a", 2, 3)],
        [response("a", 2, 3), response("b", 4), response("c", 5)],
        [response("d", 6)],
    )
    watch = MessageWatch(script, include_receipts=True)
    assert [next(watch).message_id for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert script.tokens == ["", "a", "c"]
