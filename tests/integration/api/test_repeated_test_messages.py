"""A test message with a request id is sent once, however often it is asked for, and wherever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from dispatcher.model.endpoints import Endpoint
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import SendTestMessageRequest, SendTestMessageResponse
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.config.types import ConfiguredEndpoint
from tests.conformance.scripted_endpoint import ScriptedEndpoint, Wire, http
from tests.integration.api.calls import refused
from tests.support.api import serving

ACCEPTED = http(b'{"code":0,"message":"OK"}')
Send = Callable[..., Awaitable[SendTestMessageResponse]]


class Gateway(ScriptedEndpoint):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def _answer(self, wire: Wire) -> None:
        await wire.request()
        await self.may_answer.wait()
        await wire.say(ACCEPTED)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway() as gateway:
        yield gateway


@pytest.fixture
async def replicas(pool: asyncpg.Pool, gateway: Gateway) -> AsyncIterator[list[Send]]:
    """Yield what sends a test message through each of two replicas, and through one that knows no endpoint."""
    known = [ConfiguredEndpoint(Endpoint("default", gateway.url, "t0ken"), "fast", "a test")]
    async with AsyncExitStack() as stack:
        sends = []
        for endpoints in (known, known, []):
            _, address = await stack.enter_async_context(serving(pool, endpoints=endpoints))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            sends.append(sender(MailingServiceStub(channel)))
        yield sends


def sender(stub: Any) -> Send:
    def send(request_id: str, text: str = "Hello {phone}") -> Any:
        request = SendTestMessageRequest(mailing=Mailing(text=text), phone="79261234567", request_id=request_id)
        return stub.SendTestMessage(request)

    return send


async def test_a_repeated_test_message_is_not_sent_again(replicas: list[Send], gateway: Gateway) -> None:
    request_id = str(uuid4())
    first = await replicas[0](request_id)
    assert (first.attempt.endpoint_status, first.text) == (200, "Hello 79261234567")
    assert [await send(request_id) for send in replicas[:2]] == [first, first]
    assert len(gateway.requests) == 1


async def test_two_at_once_send_one_test_message(replicas: list[Send], gateway: Gateway) -> None:
    request_id = str(uuid4())
    one, other = await asyncio.gather(*(send(request_id) for send in replicas[:2]))
    assert one == other
    assert len(gateway.requests) == 1


async def test_a_test_message_goes_on_when_its_caller_is_gone(replicas: list[Send], gateway: Gateway) -> None:
    request_id = str(uuid4())
    gateway.may_answer.clear()
    call: Any = replicas[0](request_id)
    sending = asyncio.ensure_future(call)
    await gateway.until(lambda: len(gateway.requests) == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    gateway.may_answer.set()
    assert (await replicas[0](request_id)).attempt.endpoint_status == 200
    assert len(gateway.requests) == 1


async def test_a_request_id_is_for_one_test_message(replicas: list[Send]) -> None:
    request_id = str(uuid4())
    await replicas[0](request_id)
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await replicas[0](request_id, "Another text")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "request_id"):
        await replicas[0]("no UUID")


async def test_what_was_refused_before_it_was_sent_may_be_repeated(replicas: list[Send], gateway: Gateway) -> None:
    request_id = str(uuid4())
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND"):
        await replicas[2](request_id)
    assert (await replicas[0](request_id)).attempt.endpoint_status == 200
    assert len(gateway.requests) == 1


async def test_a_test_message_of_unknown_outcome_is_not_sent_again(
    replicas: list[Send], gateway: Gateway, pool: asyncpg.Pool
) -> None:
    """Its replica was killed: what it has begun has no answer, and gets none."""
    request_id = str(uuid4())
    await replicas[0](request_id)
    await pool.execute("UPDATE requests SET answer = NULL, created_at = created_at - interval '61 s'")
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await replicas[1](request_id)
    assert len(gateway.requests) == 1


async def test_the_kept_answer_names_nobody(replicas: list[Send], pool: asyncpg.Pool) -> None:
    await replicas[0](str(uuid4()), "Dear Vera")
    assert b"Vera" not in await pool.fetchval("SELECT answer FROM requests")
