"""Test messages are few, leave a trace, and respect who wants none and what their sender may know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest

from dispatcher.model.endpoints import Endpoint
from mailing.v1.client_service_pb2 import CreateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest, SendTestMessageRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.config.types import ConfiguredEndpoint
from tests.conformance.scripted_endpoint import ScriptedEndpoint, answers, http
from tests.integration.api.calls import client, mailing, refused
from tests.integration.auth.conftest import Guarded, Start, Tokens

PHONE = "79261234567"


Callers = dict[str, Any]


@pytest.fixture
def callers(tokens: Tokens) -> Callers:
    """Return the metadata of some callers, by their names."""
    scopes = {
        "ops": ["all"],
        "writer": ["mailings.write"],
        "both": ["mailings.write", "clients.write"],
        "few": ["mailings.read", "mailings.write"],
        "more": ["mailings.read", "mailings.write", "clients.read"],
    }
    return {name: tokens.make(name, *has) for name, has in scopes.items()}


@pytest.fixture
async def guarded(start: Start, tokens: Tokens, callers: Callers) -> AsyncIterator[Guarded]:
    async with ScriptedEndpoint(answers(http(b'{"code": 0}'))) as gateway:
        endpoints = [ConfiguredEndpoint(Endpoint("default", gateway.url, "t0ken"), "fast", "a test")]
        yield await start(endpoints=endpoints, authenticator=tokens.authenticator())


async def send(guarded: Guarded, metadata: Any, text: str = "Hello", force: bool = False) -> Any:
    stub: Any = MailingServiceStub(guarded.channel)
    request = SendTestMessageRequest(mailing=mailing(text), phone=PHONE, force=force)
    return await stub.SendTestMessage(request, metadata=metadata)


async def add(guarded: Guarded, callers: Callers, **fields: Any) -> None:
    stub: Any = ClientServiceStub(guarded.channel)
    await stub.CreateClient(CreateClientRequest(client=client(PHONE, **fields)), metadata=callers["ops"])


async def test_who_opted_out_gets_no_test_unless_it_is_forced(guarded: Guarded, callers: Callers) -> None:
    """And only a caller who may change clients may force it."""
    await add(guarded, callers, opted_out=True)
    writer, both = callers["writer"], callers["both"]
    with refused("FAILED_PRECONDITION", "CLIENT_OPTED_OUT"):
        await send(guarded, both)
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        await send(guarded, writer, force=True)
    assert (await send(guarded, both, force=True)).attempt.endpoint_status == 200


async def test_attributes_are_for_those_who_may_read_clients(guarded: Guarded, callers: Callers) -> None:
    """In test messages and in previews; others get the defaults of the text."""
    await add(guarded, callers, attributes={"name": "Vera"})
    stub: Any = MailingServiceStub(guarded.channel)
    text = "Hello {attributes.name|friend}"
    for metadata, shown in ((callers["few"], "Hello friend"), (callers["more"], "Hello Vera")):
        assert (await send(guarded, metadata, text)).text == shown
        preview = PreviewMailingRequest(mailing=mailing(text), samples=1)
        assert [one.text for one in (await stub.PreviewMailing(preview, metadata=metadata)).samples] == [shown]


async def test_tests_are_recorded_with_a_masked_phone(guarded: Guarded, callers: Callers, pool: asyncpg.Pool) -> None:
    await send(guarded, callers["writer"])
    (entry,) = await pool.fetch("SELECT principal, text, details FROM log WHERE event = 'mailing.tested'")
    assert entry["principal"] == "token:writer"
    assert PHONE not in entry["text"] + entry["details"]
    assert "*********67" in entry["details"]


async def test_a_caller_sends_few_tests_a_second(guarded: Guarded, callers: Callers) -> None:
    """Fails when only the general rate of calls counts."""
    writer, other = callers["writer"], callers["both"]
    ends = await asyncio.gather(*(send(guarded, writer) for _ in range(20)), return_exceptions=True)
    codes = [one.code() for one in ends if isinstance(one, grpc.aio.AioRpcError)]
    assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert 5 <= len(codes) <= 15
    assert (await send(guarded, other)).attempt.endpoint_status == 200
