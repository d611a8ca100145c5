"""A real server on a free port, on a real database, and stubs to call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest
from prometheus_client import CollectorRegistry

from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.message_service_pb2_grpc import MessageServiceStub
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from mailing.v1.segment_service_pb2_grpc import SegmentServiceStub
from server.config.types import ConfiguredEndpoint
from server.runtime.api_settings import ApiSettings
from tests.support.api import serving

if TYPE_CHECKING:  # the names of asyncio's stubs exist for the type checker only
    from mailing.v1.client_service_pb2_grpc import ClientServiceAsyncStub
    from mailing.v1.mailing_service_pb2_grpc import MailingServiceAsyncStub
    from mailing.v1.message_service_pb2_grpc import MessageServiceAsyncStub
    from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceAsyncStub
    from mailing.v1.segment_service_pb2_grpc import SegmentServiceAsyncStub


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
    address: str
    clients: ClientServiceAsyncStub = field(init=False)
    mailings: MailingServiceAsyncStub = field(init=False)
    messages: MessageServiceAsyncStub = field(init=False)
    schedules: ScheduleServiceAsyncStub = field(init=False)
    segments: SegmentServiceAsyncStub = field(init=False)

    def __post_init__(self) -> None:
        self.clients = ClientServiceStub(self.channel)
        self.mailings = MailingServiceStub(self.channel)
        self.messages = MessageServiceStub(self.channel)
        self.schedules = ScheduleServiceStub(self.channel)
        self.segments = SegmentServiceStub(self.channel)


@pytest.fixture
def api_settings() -> ApiSettings:
    """Return how the API is served; tests that need it otherwise have their own."""
    return ApiSettings()


@pytest.fixture
def endpoints() -> Sequence[ConfiguredEndpoint]:
    """Return the configured endpoints."""
    return ()


@pytest.fixture
async def service(
    pool: asyncpg.Pool, api_settings: ApiSettings, endpoints: Sequence[ConfiguredEndpoint]
) -> AsyncIterator[Service]:
    hints, registry = Hints(), CollectorRegistry()
    parts = serving(pool, hint=hints, registry=registry, endpoints=endpoints, settings=api_settings)
    async with parts as (server, address), grpc.aio.insecure_channel(address) as channel:
        yield Service(channel, registry, hints, lambda: server.stop(0.5), address)
