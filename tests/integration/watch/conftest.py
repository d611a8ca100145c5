"""Real servers on free ports, on a real database with mailings whose batches tests settle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from prometheus_client import CollectorRegistry

from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.api import RpcServer, RpcSettings, build_server
from server.watch import Polling, StreamSettings
from tests.integration.watch.ledger import Work

if TYPE_CHECKING:  # the names of asyncio's stubs exist for the type checker only
    from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceAsyncStub
    from mailing.v1.mailing_service_pb2_grpc import MailingServiceAsyncStub

FAST = StreamSettings(checkpoint=0.2, polling=Polling(shortest=0.01, longest=0.02, away=0.05))
RPC = RpcSettings(acquire_timeout=2.0)


@dataclass
class Replica:
    """A running server as its callers see it."""

    server: RpcServer
    address: str
    channel: grpc.aio.Channel
    delivery: DeliveryServiceAsyncStub = field(init=False)
    mailings: MailingServiceAsyncStub = field(init=False)

    def __post_init__(self) -> None:
        self.delivery = DeliveryServiceStub(self.channel)
        self.mailings = MailingServiceStub(self.channel)


Start = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def start(pool: asyncpg.Pool) -> AsyncIterator[Start]:
    """Start replicas; keyword arguments are fields of StreamSettings, and `rpc` is everything else."""
    async with AsyncExitStack() as stack:

        async def begin(rpc: RpcSettings = RPC, **settings: Any) -> Replica:
            chosen = replace(rpc, streams=replace(FAST, **settings))
            server = await build_server(pool, lambda: None, CollectorRegistry(), chosen)
            address = f"127.0.0.1:{server.bind('127.0.0.1:0')}"
            await server.start()
            stack.push_async_callback(server.stop, 0)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            return Replica(server, address, channel)

        yield begin


@pytest.fixture
async def replica(start: Start) -> Replica:
    return await start()


@pytest.fixture
def work(pool: asyncpg.Pool) -> Work:
    return Work(pool)
