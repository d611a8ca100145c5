"""Real servers on free ports, on a real database with mailings whose batches tests settle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest

from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.api import ApiServer
from server.runtime.api_settings import ApiSettings
from server.watch import Polling, StreamSettings
from tests.integration.watch.ledger import Work
from tests.support.api import serving

if TYPE_CHECKING:  # the names of asyncio's stubs exist for the type checker only
    from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceAsyncStub
    from mailing.v1.mailing_service_pb2_grpc import MailingServiceAsyncStub

FAST = StreamSettings(checkpoint=0.2, polling=Polling(shortest=0.01, longest=0.02, away=0.05))


@dataclass
class Replica:
    """A running server as its callers see it."""

    server: ApiServer
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
    """Start replicas; keyword arguments are fields of StreamSettings, and `api` is everything else."""
    async with AsyncExitStack() as stack:

        async def begin(api: ApiSettings = ApiSettings(), **settings: Any) -> Replica:  # noqa: B008 - frozen
            chosen = replace(api, streams=replace(FAST, **settings))
            server, address = await stack.enter_async_context(serving(pool, settings=chosen))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            return Replica(server, address, channel)

        yield begin


@pytest.fixture
async def replica(start: Start) -> Replica:
    return await start()


@pytest.fixture
def work(pool: asyncpg.Pool) -> Work:
    return Work(pool)
