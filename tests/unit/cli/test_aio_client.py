"""The SDK for asyncio: the same surface as the one for threads, and the same behaviour on a real channel."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

import mailing
from mailing import FieldViolation, MailingError, aio, new_client, new_mailing
from mailing.v1.client_pb2 import Client
from mailing.v1.mailing_service_pb2 import CreateMailingRequest
from tests.unit.cli.conftest import Service


def surface(kind: type) -> dict[str, list[str]]:
    methods = inspect.getmembers(kind, inspect.isroutine)
    return {name: list(inspect.signature(one).parameters) for name, one in methods if not name.startswith("_")}


@pytest.mark.parametrize("name", aio.__all__)
def test_both_clients_have_the_same_surface(name: str) -> None:
    assert surface(getattr(aio, name)) == surface(getattr(mailing, name))


async def test_calls_pages_and_streams_are_awaited(service: Service) -> None:
    async with aio.MailingClient.connect(service.address, lambda: "secret") as client:
        made = [await client.create_client(new_client(f"7010000000{n}", "UTC")) for n in range(5)]
        assert [one.id async for one in client.list_clients()] == [one.id for one in made]
        assert [one async for one in client.export_clients()] == made
    assert service.clients.metadata["authorization"] == "Bearer secret"


async def test_an_error_has_its_details(service: Service) -> None:
    service.clients.bad_phones["70100000003"] = ("timezone", "is not a time zone")
    async with aio.MailingClient.connect(service.address) as client:
        with pytest.raises(MailingError) as raised:
            await client.import_clients(new_client(f"7010000000{n}", "UTC") for n in range(5))
        assert raised.value.fields == (FieldViolation("clients[3].timezone", "is not a time zone"),)
        assert not raised.value.is_transport
    async with aio.MailingClient.connect("127.0.0.1:1") as client:
        with pytest.raises(MailingError) as raised:
            await client.create_mailing(new_mailing("Hello"))
        assert raised.value.is_transport


def phones(count: int) -> Iterator[Client]:
    return (new_client(f"7010{number:07}", "UTC") for number in range(count))


async def test_an_import_takes_any_iterable_and_tells_how_far_it_is(service: Service) -> None:
    async def source() -> AsyncIterator[Client]:
        for one in phones(1201):
            yield one

    seen: list[int] = []
    async with aio.MailingClient.connect(service.address) as client:
        for clients in (source(), phones(1201)):
            answer = await client.import_clients(clients, progress=seen.append)
            assert answer.created == 1201
    assert seen == [500, 1000, 1201] * 2


@pytest.mark.parametrize("before", [0, 500, 1200])
async def test_an_import_whose_source_fails_imports_nothing_and_raises(before: int, service: Service) -> None:
    class SourceFailedError(Exception):
        pass

    async def source() -> AsyncIterator[Client]:
        for one in phones(before):
            yield one
        raise SourceFailedError

    async with aio.MailingClient.connect(service.address) as client:
        with pytest.raises(SourceFailedError):
            await client.import_clients(source())
        assert (await client.import_clients([new_client("70200000000", "UTC")])).created == 1
    assert [one.phone for one in service.clients.stored] == ["70200000000"]


async def test_a_call_of_a_stub_has_the_deadline_and_the_errors_of_the_client(service: Service) -> None:
    async with aio.MailingClient.connect(service.address) as client:
        request = CreateMailingRequest(mailing=new_mailing("Hello"))
        answer: Any = await client.call(client.mailings.CreateMailing, request)
        assert answer.mailing.text == "Hello"
        assert service.mailings.created[0].request_id
        assert not request.request_id
        with pytest.raises(MailingError) as raised:
            await client.call(client.messages.GetMessage, request)
        assert raised.value.code is grpc.StatusCode.UNIMPLEMENTED
