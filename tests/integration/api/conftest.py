"""A real server on a free port, on a real database, and stubs to call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest
from prometheus_client import CollectorRegistry

from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.message_service_pb2_grpc import MessageServiceStub
from server.api import RpcSettings, build_server

if TYPE_CHECKING:  # the names of asyncio's stubs exist for the type checker only
    from mailing.v1.client_service_pb2_grpc import ClientServiceAsyncStub
    from mailing.v1.mailing_service_pb2_grpc import MailingServiceAsyncStub
    from mailing.v1.message_service_pb2_grpc import MessageServiceAsyncStub


@dataclass
class Hints:
    """Counts how often the dispatcher was to wake."""

    count: int = 0

    def __call__(self) -> None:
        self.count += 1


@dataclass
class Service:
    """A running server as its callers see it."""

    channel: grpc.aio.Channel
    registry: CollectorRegistry
    hints: Hints
    shut_down: Callable[[], Awaitable[None]]
    clients: ClientServiceAsyncStub = field(init=False)
    mailings: MailingServiceAsyncStub = field(init=False)
    messages: MessageServiceAsyncStub = field(init=False)

    def __post_init__(self) -> None:
        self.clients = ClientServiceStub(self.channel)
        self.mailings = MailingServiceStub(self.channel)
        self.messages = MessageServiceStub(self.channel)


@pytest.fixture
def rpc_settings() -> RpcSettings:
    """Return how the API is served; test that need it otherwise have their own."""
    return RpcSettings()


@pytest.fixture
async def service(pool: asyncpg.Pool, rpc_settings: RpcSettings) -> AsyncIterator[Service]:
    hints, registry = Hints(), CollectorRegistry()
    server = await build_server(pool, hints, registry, replace(rpc_settings, acquire_timeout=2.0))
    port = server.bind("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Service(channel, registry, hints, lambda: server.stop(0.5))
    await server.stop(0)
