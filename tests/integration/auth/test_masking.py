"""Phones, wherever they leave, are hidden from callers who may not read clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from dispatcher.model.endpoints import Endpoint
from mailing.v1.admin_service_pb2 import ProbeEndpointRequest, WatchLogRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    DeleteClientRequest,
    GetClientRequest,
    GetClientStoryRequest,
    UpdateClientRequest,
)
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest, SendTestMessageRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.message_service_pb2 import ExportMessagesRequest, ListAttemptsRequest
from mailing.v1.message_service_pb2_grpc import MessageServiceStub
from server.config.types import ConfiguredEndpoint
from tests.conformance.scripted_endpoint import ScriptedEndpoint, answers, http
from tests.integration.api.calls import client, mailing, refused
from tests.integration.api.rows import add_batch, add_mailing
from tests.integration.auth.conftest import Start, Tokens

PHONE, MASKED = "79261234567", "*********67"
OWN_PHONE = "+7 (926) 123-45-67"
OWN_WORDS = f"{OWN_PHONE} is full, code 12345"
"""What an endpoint says, with a phone as it writes it; no excerpt has it."""


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedEndpoint]:
    body = orjson.dumps({"code": 7, "message": OWN_WORDS})
    async with ScriptedEndpoint(answers(http(body))) as endpoint:
        yield endpoint


async def test_phones_are_hidden_wherever_they_leave(
    start: Start, tokens: Tokens, gateway: ScriptedEndpoint, pool: asyncpg.Pool
) -> None:
    """Fails for each of these places when its masking is taken out."""
    writer = tokens.make("writer", "clients.write", "mailings.read", "mailings.write", "messages.read")
    reader = tokens.make("reader", "all")
    endpoints = [ConfiguredEndpoint(Endpoint("default", gateway.url, "t0ken"), "fast", "a test")]
    guarded = await start(endpoints=endpoints, authenticator=tokens.authenticator())
    clients: Any = ClientServiceStub(guarded.channel)
    mailings: Any = MailingServiceStub(guarded.channel)
    messages: Any = MessageServiceStub(guarded.channel)

    made = (await clients.CreateClient(CreateClientRequest(client=client(PHONE)), metadata=writer)).client
    assert made.phone == MASKED
    client_id, mailing_id = made.id, await add_mailing(pool)
    message_id = mailing_id << 32 | client_id
    await add_batch(pool, mailing_id, [client_id])
    await _add_attempt(pool, mailing_id, client_id)
    shown = {}
    for metadata in (reader, writer):
        update = UpdateClientRequest(client=client(PHONE, id=client_id))
        preview = PreviewMailingRequest(mailing=mailing("For {phone}, from 88001234567"), samples=1)
        trial = SendTestMessageRequest(mailing=mailing("For {phone}"), phone=PHONE)
        sample = (await mailings.PreviewMailing(preview, metadata=metadata)).samples[0]
        sent = await mailings.SendTestMessage(trial, metadata=metadata)
        attempts = await messages.ListAttempts(ListAttemptsRequest(message_id=message_id), metadata=metadata)
        export = messages.ExportMessages(ExportMessagesRequest(mailing_id=mailing_id), metadata=metadata)
        (exported,) = (await export.read()).messages
        shown[metadata is writer] = [
            (await clients.UpdateClient(update, metadata=metadata)).client.phone,
            sample.phone,
            sample.text,
            sent.text,
            orjson.loads(sent.attempt.response_excerpt)["message"],
            attempts.attempts[0].response_excerpt,
            exported.phone,
            exported.text,
        ]
    assert shown[False] == [
        PHONE,
        PHONE,
        f"For {PHONE}, from 88001234567",
        f"For {PHONE}",
        OWN_WORDS.replace(OWN_PHONE, "+…"),
        f"no {PHONE}",
        PHONE,
        "Hello",
    ]
    assert shown[True] == [
        MASKED,
        MASKED,
        f"For {MASKED}, from 88001234567",
        f"For {MASKED}",
        OWN_WORDS.replace(OWN_PHONE, "+…"),
        f"no {MASKED}",
        MASKED,
        "",
    ]
    assert [orjson.loads(request.body)["phone"] for request in gateway.requests] == [int(PHONE)] * 2


async def _add_attempt(pool: asyncpg.Pool, mailing_id: int, client_id: int) -> None:
    """Add a message with one failed attempt, whose answer names the phone."""
    bucket = client_id % 16
    await pool.execute(
        "INSERT INTO attempts VALUES ($1, $2, $3, 1, now(), 'default', 9, 503, 7, 250, $4)",
        bucket,
        mailing_id,
        client_id,
        f"no {PHONE}",
    )


async def test_a_taken_phone_names_its_client_to_those_who_may_know(start: Start, tokens: Tokens) -> None:
    """Fails when a caller who may not read clients gets the id."""
    writer, reader = tokens.make("writer", "clients.write"), tokens.make("reader", "clients.write", "clients.read")
    guarded = await start(authenticator=tokens.authenticator())
    clients: Any = ClientServiceStub(guarded.channel)
    made = (await clients.CreateClient(CreateClientRequest(client=client(PHONE)), metadata=writer)).client
    other = (await clients.CreateClient(CreateClientRequest(client=client("79261234568")), metadata=writer)).client
    for metadata, told in ((writer, {}), (reader, {"client": str(made.id)})):
        with refused("ALREADY_EXISTS", "PHONE_TAKEN") as info:
            await clients.CreateClient(CreateClientRequest(client=client(PHONE)), metadata=metadata)
        assert dict(info.metadata) == told
    with refused("ALREADY_EXISTS", "PHONE_TAKEN") as info:
        await clients.UpdateClient(UpdateClientRequest(client=client(PHONE, id=other.id)), metadata=reader)
    assert dict(info.metadata) == {"client": str(made.id)}


async def test_an_update_shows_only_what_was_written(start: Start, tokens: Tokens) -> None:
    """Fails when a caller who may not read clients learns of their attributes, or which phones there are."""
    writer, both = tokens.make("writer", "clients.write"), tokens.make("both", "clients.write", "clients.read")
    guarded = await start(authenticator=tokens.authenticator())
    clients: Any = ClientServiceStub(guarded.channel)
    definition = client(PHONE, tag="vip", attributes={"name": "Anna", "city": "Omsk"})
    made = (await clients.CreateClient(CreateClientRequest(client=definition), metadata=both)).client
    change = UpdateClientRequest(
        client=Client(id=made.id, attributes={"city": "Perm"}), update_mask=FieldMask(paths=["attributes.city"])
    )
    answer = (await clients.UpdateClient(change, metadata=writer)).client
    assert (answer.id, dict(answer.attributes), answer.tag, answer.timezone) == (made.id, {"city": "Perm"}, "", "")
    assert answer.etag
    answer = (await clients.UpdateClient(change, metadata=both)).client
    assert (dict(answer.attributes), answer.tag) == ({"name": "Anna", "city": "Perm"}, "vip")
    for phone in (PHONE, "79990000000"):
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            await clients.UpdateClient(UpdateClientRequest(client=Client(tag="a"), phone=phone), metadata=writer)
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            await clients.DeleteClient(DeleteClientRequest(phone=phone), metadata=writer)
    for phone in ("79261234568", "79990000000"):
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            await clients.UpdateClient(UpdateClientRequest(client=Client(id=made.id, phone=phone)), metadata=writer)


async def test_looks_at_one_client_and_probes_are_on_record(
    start: Start, tokens: Tokens, gateway: ScriptedEndpoint
) -> None:
    anna = tokens.make("anna", "all")
    endpoints = [ConfiguredEndpoint(Endpoint("default", gateway.url, "t0ken"), "fast", "a test")]
    guarded = await start(endpoints=endpoints, authenticator=tokens.authenticator())
    clients: Any = ClientServiceStub(guarded.channel)
    admin: Any = AdminServiceStub(guarded.channel)
    made = (await clients.CreateClient(CreateClientRequest(client=client(PHONE)), metadata=anna)).client
    await clients.GetClient(GetClientRequest(client_id=made.id), metadata=anna)
    await clients.GetClient(GetClientRequest(phone=PHONE), metadata=anna)
    await clients.GetClientStory(GetClientStoryRequest(phone=PHONE), metadata=anna)
    await admin.ProbeEndpoint(ProbeEndpointRequest(endpoint="default"), metadata=anna)
    entries: list[LogEntry] = []
    log = admin.WatchLog(WatchLogRequest(), metadata=anna)
    while len(entries) < 3:
        entries += (await log.read()).entries
    found = {(one.event, one.client_id, one.principal, *sorted(one.details.items())) for one in entries}
    assert found == {
        ("client.read", made.id, "token:anna", ("what", "client")),
        ("client.read", made.id, "token:anna", ("what", "story")),
        ("endpoint.probed", 0, "token:anna", ("endpoint", "default"), ("error_class", "REJECTED")),
    }
    assert PHONE not in str(entries)
    story = await clients.GetClientStory(GetClientStoryRequest(phone=PHONE), metadata=anna)
    assert list(story.events) == []
