"""The log of a real server, as operators read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from prometheus_client import CollectorRegistry

from mailing.v1.admin_service_pb2 import WatchLogRequest, WatchLogResponse
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.api import RpcServer, RpcSettings, build_server

if TYPE_CHECKING:  # the names of asyncio's stubs exist for the type checker only
    from mailing.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from mailing.v1.client_service_pb2_grpc import ClientServiceAsyncStub
    from mailing.v1.mailing_service_pb2_grpc import MailingServiceAsyncStub


@dataclass
class Replica:
    server: RpcServer
    channel: grpc.aio.Channel
    admin: AdminServiceAsyncStub = field(init=False)
    clients: ClientServiceAsyncStub = field(init=False)
    mailings: MailingServiceAsyncStub = field(init=False)

    def __post_init__(self) -> None:
        self.admin = AdminServiceStub(self.channel)
        self.clients = ClientServiceStub(self.channel)
        self.mailings = MailingServiceStub(self.channel)


class Watch:
    """One stream of the log; `token` is the last one that came."""

    def __init__(self, replica: Replica, **request: Any) -> None:
        self.token = ""
        self._call = replica.admin.WatchLog(WatchLogRequest(**request))

    async def response(self) -> WatchLogResponse:
        async with asyncio.timeout(10):
            response: Any = await self._call.read()
        assert response is not grpc.aio.EOF
        self.token = response.resume_token
        return WatchLogResponse.FromString(response.SerializeToString())

    async def past(self) -> list[LogEntry]:
        """All that was written so far."""
        entries: list[LogEntry] = []
        while not (response := await self.response()).checkpoint:
            assert response.entries
            entries += response.entries
        return entries

    async def next(self, count: int) -> list[LogEntry]:
        """Return the next entries, so many at least."""
        entries: list[LogEntry] = []
        while len(entries) < count:
            entries += (await self.response()).entries
        return entries

    def cancel(self) -> None:
        self._call.cancel()


Start = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def start(pool: asyncpg.Pool) -> AsyncIterator[Start]:
    """Start replicas; `options` are those of the channel to it."""
    async with AsyncExitStack() as stack:

        async def begin(patience: float = 60.0, options: Sequence[tuple[str, int]] = ()) -> Replica:
            settings = RpcSettings(acquire_timeout=2.0, reader_patience=patience)
            server = await build_server(pool, lambda: None, CollectorRegistry(), settings)
            port = server.bind("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
            await stack.enter_async_context(channel)
            return Replica(server, channel)

        yield begin


@pytest.fixture
async def replica(start: Start) -> Replica:
    return await start()
