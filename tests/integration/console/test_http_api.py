"""The API over HTTP gives what it gives by gRPC, for each method and each path of it, and fails in the same words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import asyncpg
import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from grpc_status import rpc_status
from openapi_schema_validator import OAS30ReadValidator

from dispatcher.model.endpoints import Endpoint
from docs.api_examples import EXAMPLES
from mailing.v1.message_pb2 import Message
from server.config import Settings
from server.config.types import ConfiguredEndpoint
from server.console.http_api.bindings import Binding, bindings, services
from server.console.screens.reference import DESCRIPTION
from server.storage.pool import open_pool
from tests.conformance.scripted_endpoint import ScriptedEndpoint, answers, http
from tests.conftest import TEMPLATE, PostgresServer
from tests.support.api import serving
from tests.support.api_examples import FIRST, INSERT_MESSAGE, LAST, example, ids_of
from tests.support.console import console_of
from tests.support.http_api import http_call, request_message, steady

OPENAPI = json.loads(DESCRIPTION.read_bytes())


class World(NamedTuple):
    """A service: its API by gRPC and by HTTP, and its database."""

    channel: grpc.aio.Channel
    http: httpx.AsyncClient
    pool: asyncpg.Pool


async def world_of(stack: AsyncExitStack, server: PostgresServer, endpoint: str) -> World:
    name = await server.create(TEMPLATE)
    stack.push_async_callback(server.drop, name)
    pool = await stack.enter_async_context(open_pool(server.dsn(name), Settings()))
    endpoints = [ConfiguredEndpoint(Endpoint("default", endpoint, ""), "fast", "a test")]
    _, address = await stack.enter_async_context(serving(pool, endpoints=endpoints))
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
    browser = await stack.enter_async_context(console_of(address))
    return World(channel, browser.client, pool)


@pytest.fixture
async def worlds(postgres_server: PostgresServer) -> AsyncIterator[tuple[World, World]]:
    """Yield two services that have seen the same."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(ScriptedEndpoint(answers(http(b'{"code":0,"message":"OK"}'))))
        yield (
            await world_of(stack, postgres_server, gateway.url),
            await world_of(stack, postgres_server, gateway.url),
        )


async def by_grpc(world: World, binding: Binding, request: ProtoMessage) -> Any:
    """Return the answer of a call as JSON, of a stream the first one, or else its status."""
    method = binding.method
    kind: Any = world.channel.unary_stream if method.server_streaming else world.channel.unary_unary
    name = f"/{method.containing_service.full_name}/{method.name}"
    call = kind(name, lambda one: one.SerializeToString(), binding.response.FromString)(request, timeout=20)
    try:
        if not method.server_streaming:
            return MessageToDict(await call)
        first = await call.read()
        return None if first is grpc.aio.EOF else {"result": MessageToDict(first)}
    except grpc.aio.AioRpcError as error:
        status = MessageToDict(rpc_status.from_call(error))
        return {"error": status} if method.server_streaming else status
    finally:
        call.cancel()


async def by_http(world: World, binding: Binding, request: ProtoMessage) -> Any:
    """Return the same by HTTP."""
    call = http_call(binding, request)
    assert call, "this path can say it"
    if not binding.method.server_streaming:
        return (await call.send(world.http)).json()
    parts = {} if call.body is None else {"json": call.body}
    async with world.http.stream(call.verb, call.path, params=call.query or None, **parts) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        async for line in answer.aiter_lines():
            return json.loads(line)
    return None


def problems_of(binding: Binding, answer: dict[str, Any] | None) -> list[str]:
    """Return what is wrong with an answer by openapi.json; a stream may have none."""
    kind = binding.method.output_type.full_name.removeprefix("mailing.v1.")
    if binding.method.server_streaming:
        (name, answer), *_ = (answer or {"result": {}}).items()
        kind = kind if name == "result" else "Status"
    elif "code" in (answer or {}):
        kind = "Status"
    schema = {"allOf": [{"$ref": f"#/components/schemas/{kind}"}], "components": OPENAPI["components"]}
    return [str(error) for error in OAS30ReadValidator(schema).iter_errors(answer)]


def cases() -> list[tuple[str, Binding]]:
    """Return every path of every method with its example, in an order in which they make sense."""
    order = [*FIRST, *(name for name in EXAMPLES if name not in (*FIRST, *LAST)), *LAST]
    named = [(f"{one.method.containing_service.name}.{one.method.name}", one) for one in bindings()]
    return [(name, binding) for wanted in order for name, binding in named if name == wanted]


async def test_each_path_of_each_method_gives_what_grpc_gives(worlds: tuple[World, World]) -> None:
    """Two services see the same calls, one of them by gRPC and the other one by HTTP."""
    one, other = worlds
    ids: dict[str, str] = {}
    differ, tried = {}, set()
    for name, binding in cases():
        request = request_message(binding, json.loads(example(name, ids)))
        if http_call(binding, request) is None:
            continue
        expected, found = await by_grpc(one, binding, request), await by_http(other, binding, request)
        assert problems_of(binding, found) == [], name
        if steady(found) != steady(expected):
            differ[f"{name} {binding.verb} {binding.template}"] = expected, found
        tried.add(name)
        if name == "ClientService.CreateClient":
            ids |= ids_of(int(expected["client"]["id"]))
        if name == "MailingService.CreateMailing":
            for world in worlds:
                await world.pool.execute(INSERT_MESSAGE, Message.STATUS_PENDING)
    assert differ == {}
    methods = {f"{service.name}.{method.name}" for service in services() for method in service.methods}
    assert methods - tried == {"ClientService.ImportClients"}
