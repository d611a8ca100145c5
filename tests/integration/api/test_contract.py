"""The whole contract is there: each method is served."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from server.api.server import SERVED
from tests.integration.api.calls import call
from tests.integration.api.conftest import Service
from tests.support.api import serving

PROTOS = Path(__file__).resolve().parents[3] / "protos" / "mailing" / "v1"
BUF = Path(sys.executable).with_name("buf")
METHODS = [method for service in SERVED for method in service.methods]


def test_the_contract_is_complete() -> None:
    """Fails for a service of the protos that nobody registers."""
    declared = {
        service
        for file in PROTOS.glob("*.proto")
        for service in re.findall(r"^service (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {service.name for service in SERVED} == declared


async def test_no_method_is_waited_for_on_its_own(monkeypatch: pytest.MonkeyPatch, pool: asyncpg.Pool) -> None:
    """Each registered method costs every call of any method."""
    registered: list[str] = []
    monkeypatch.setattr(
        "grpc.aio._server.Server.add_registered_method_handlers", lambda _, name, __: registered.append(name)
    )
    async with serving(pool):
        assert registered == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_every_method_is_served(service: Service, method: MethodDescriptor) -> None:
    try:
        await call(service.channel, method)
    except grpc.aio.AioRpcError as error:
        # The request was empty, and no endpoint is configured.
        assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)  # noqa: PT017


async def test_health_speaks_for_every_service_and_for_all(service: Service) -> None:
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    for name in ("", *(one.full_name for one in SERVED)):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watching = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
    await service.shut_down()
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watching.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_names_every_service_and_gives_their_files(service: Service, version: str) -> None:
    talk: Any = service.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        for one in SERVED:
            yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=one.full_name)
        yield reflection_pb2.ServerReflectionRequest(
            file_containing_symbol=f"grpc.reflection.{version}.ServerReflection"
        )

    names, *files = [answer async for answer in talk(questions())]
    listed = {one.name for one in names.list_services_response.service}
    assert listed >= {one.full_name for one in SERVED} | {"grpc.health.v1.Health"}
    assert all(answer.file_descriptor_response.file_descriptor_proto for answer in files)


async def test_buf_describes_and_calls_every_service_by_reflection(service: Service) -> None:
    """Fails when reflection v1 cannot describe itself: it is among the services that are listed."""

    async def buf(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(BUF),
            "curl",
            "--http2-prior-knowledge",
            "--protocol",
            "grpc",
            *arguments,
            stdout=PIPE,
            stderr=PIPE,
            cwd="/",
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    listed = await buf("--list-methods", f"http://{service.address}")
    assert "mailing.v1.ClientService/GetClient" in listed
    assert "grpc.reflection.v1.ServerReflection/ServerReflectionInfo" in listed
    answer = await buf("-d", "{}", f"http://{service.address}/mailing.v1.ClientService/ListClients")
    assert json.loads(answer) == {}
