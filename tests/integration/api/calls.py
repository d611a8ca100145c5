"""What calls to the API are made of, and what an error must look like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status.rpc_status import from_call

from mailing.v1 import client_pb2, client_service_pb2, mailing_pb2, time_of_day_pb2
from tests.integration.api.conftest import Service


@contextmanager
def refused(code: str, reason: str, *paths: str) -> Iterator[ErrorInfo]:
    """The block must be refused with this status and reason, the bad fields being `paths`."""
    info = ErrorInfo()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield info
    error = caught.value
    assert error.code().name == code, error.details()
    status = from_call(error)
    assert status is not None, error.details()
    bad = BadRequest()
    for detail in status.details:
        assert detail.Unpack(info) or detail.Unpack(bad) or detail.Is(RetryInfo.DESCRIPTOR)
    assert (info.reason, info.domain) == (reason, "mailing.v1")
    assert [violation.field for violation in bad.field_violations] == list(paths)
    assert all(violation.description for violation in bad.field_violations)


def window(hours: int = 9, length: float = 3600) -> client_pb2.ReceiveWindow:
    span = Duration()
    span.FromMilliseconds(int(length * 1000))
    return client_pb2.ReceiveWindow(start=time_of_day_pb2.TimeOfDay(hours=hours), duration=span)


def client(phone: str | int = "79261234567", timezone: str = "Europe/Moscow", **fields: Any) -> client_pb2.Client:
    return client_pb2.Client(phone=str(phone), timezone=timezone, **fields)


def mailing(text: str = "Hello", **fields: Any) -> mailing_pb2.Mailing:
    return mailing_pb2.Mailing(text=text, **fields)


async def add_client(service: Service, phone: str | int = "79261234567", **fields: Any) -> client_pb2.Client:
    request = client_service_pb2.CreateClientRequest(client=client(phone, **fields))
    return (await service.clients.CreateClient(request)).client


async def requests(*pieces: Sequence[client_pb2.Client]) -> AsyncIterator[client_service_pb2.ImportClientsRequest]:
    for piece in pieces:
        yield client_service_pb2.ImportClientsRequest(clients=piece)


async def imported(service: Service, *pieces: Sequence[client_pb2.Client]) -> tuple[int, int, int]:
    """Import; return how many were created, updated and unchanged."""
    answer = await service.clients.ImportClients(requests(*pieces))
    return answer.created, answer.updated, answer.unchanged


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Any = None) -> Any:
    """Call a method with an empty request; return its first or only answer."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = GetMessageClass(method.input_type)()
    answer_type = GetMessageClass(method.output_type)
    serializers: dict[str, Any] = {
        "request_serializer": lambda message: message.SerializeToString(),
        "response_deserializer": answer_type.FromString,
    }

    async def one() -> AsyncIterator[Any]:
        yield request

    if method.client_streaming:
        return await channel.stream_unary(path, **serializers)(one(), metadata=metadata)
    if method.server_streaming:
        return await channel.unary_stream(path, **serializers)(request, metadata=metadata).read()
    return await channel.unary_unary(path, **serializers)(request, metadata=metadata)
