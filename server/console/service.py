"""The service as the console calls it: one channel, and every call in the name of one person.

A failed call raises MailingError with what the API says about it; nothing is retried here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import grpc

from mailing.errors import MailingError
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.message_service_pb2_grpc import MessageServiceStub
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from mailing.v1.segment_service_pb2_grpc import SegmentServiceStub

PATIENCE = 15.0
"""Seconds that a call may take."""

_MAX_RECEIVED_BYTES = 64 << 20

A = TypeVar("A")
B = TypeVar("B")


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """Return a channel with a connection of its own, which it opens at the first call."""
    options = [
        ("grpc.max_receive_message_length", _MAX_RECEIVED_BYTES),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3000),
    ]
    if credentials:
        return grpc.aio.secure_channel(address, credentials, options)
    return grpc.aio.insecure_channel(address, options)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a person calls the API with; without a token, nothing."""

    token: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @property
    def digest(self) -> str:
        """A name for the credentials that tells nothing of them."""
        return sha256(self.token.encode()).hexdigest() if self.token else ""


class Service:
    """The methods of the API over one channel, which connects at the first call."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._channel = open_channel(address, credentials)
        self.clients = ClientServiceStub(self._channel)
        self.mailings = MailingServiceStub(self._channel)
        self.messages = MessageServiceStub(self._channel)
        self.schedules = ScheduleServiceStub(self._channel)
        self.segments = SegmentServiceStub(self._channel)
        self.delivery = DeliveryServiceStub(self._channel)
        self.admin = AdminServiceStub(self._channel)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[A, B],
        request: A,
        who: Credentials,
        patience: float = PATIENCE,
    ) -> B:
        """Return the answer to a call of one answer. Raise MailingError."""
        try:
            return await method(request, timeout=patience, metadata=who.metadata)
        except grpc.aio.AioRpcError as error:
            raise MailingError.from_rpc_error(error) from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[A, B], request: A, who: Credentials
    ) -> AsyncIterator[B]:
        """Yield the answers of a stream until it ends. Raise MailingError."""
        call = method(request, metadata=who.metadata)
        try:
            async for one in call:
                yield one
        except grpc.aio.AioRpcError as error:
            raise MailingError.from_rpc_error(error) from error
        finally:
            call.cancel()

    async def upload(
        self,
        method: grpc.aio.StreamUnaryMultiCallable[A, B],
        requests: AsyncIterator[A],
        who: Credentials,
        patience: float,
    ) -> B:
        """Send a stream of requests and return the answer. Raise MailingError, and what `requests` raises."""
        failures: list[Exception] = []

        async def watched() -> AsyncIterator[A]:
            try:
                async for request in requests:
                    yield request
            except Exception as error:
                failures.append(error)
                raise

        try:
            return await method(watched(), timeout=patience, metadata=who.metadata)
        except grpc.aio.AioRpcError as error:
            raise MailingError.from_rpc_error(error) from error
        except asyncio.CancelledError:
            # gRPC cancels the call when its requests fail, and keeps the reason to itself.
            if failures:
                raise failures[0] from None
            raise

    async def close(self) -> None:
        """Cancel all calls."""
        await self._channel.close()
