"""The gRPC server of one replica: services, health and reflection behind the interceptors.

It is handed its parts and builds none of them; how they end together is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from mailing.v1 import (
    admin_service_pb2,
    client_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
    schedule_service_pb2,
    segment_service_pb2,
)
from mailing.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from mailing.v1.client_service_pb2_grpc import add_ClientServiceServicer_to_server
from mailing.v1.mailing_service_pb2_grpc import add_MailingServiceServicer_to_server
from mailing.v1.message_service_pb2_grpc import add_MessageServiceServicer_to_server
from mailing.v1.schedule_service_pb2_grpc import add_ScheduleServiceServicer_to_server
from mailing.v1.segment_service_pb2_grpc import add_SegmentServiceServicer_to_server
from server.api.grpc_poller import start_poller
from server.api.health import Health
from server.api.reflection import add_reflection
from server.api.services import (
    AdminService,
    ClientService,
    DeliveryService,
    MailingService,
    MessageService,
    ScheduleService,
    SegmentService,
)
from server.api.services.delivery_service import DELIVERY
from server.api.transport import CannotListen, TransportSettings, check_free
from server.observability.metrics.samples import Samples
from server.watch import Streams

SERVED = (
    client_service_pb2.DESCRIPTOR.services_by_name["ClientService"],
    mailing_service_pb2.DESCRIPTOR.services_by_name["MailingService"],
    message_service_pb2.DESCRIPTOR.services_by_name["MessageService"],
    DELIVERY,
    schedule_service_pb2.DESCRIPTOR.services_by_name["ScheduleService"],
    segment_service_pb2.DESCRIPTOR.services_by_name["SegmentService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)
NAMES = tuple(service.full_name for service in SERVED)
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class GenericServer:
    """What generated code registers services at: takes their handlers, and registers no method.

    A server waits for the next call of each registered method with a task of its own, and looks at all of
    these tasks at every call: with some fifty methods that is a sixth of the time of a small one.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Pass them on."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: object) -> None:
        """Do nothing: the generic handlers have the same methods."""


@dataclass(frozen=True, slots=True)
class Services:
    """A servicer for each implemented service of the contract."""

    clients: ClientService
    mailings: MailingService
    messages: MessageService
    segments: SegmentService
    delivery: DeliveryService
    schedules: ScheduleService
    admin: AdminService

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register all of them."""
        add_ClientServiceServicer_to_server(self.clients, server)
        add_MailingServiceServicer_to_server(self.mailings, server)
        add_MessageServiceServicer_to_server(self.messages, server)
        add_SegmentServiceServicer_to_server(self.segments, server)
        server.add_generic_rpc_handlers((self.delivery.handler(),))
        add_ScheduleServiceServicer_to_server(self.schedules, server)
        add_AdminServiceServicer_to_server(self.admin, server)


class ApiServer:
    """The API of one replica: `bind`, `start`, and at the end `stop`."""

    def __init__(
        self,
        server: grpc.aio.Server,
        health: Health,
        streams: Streams,
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        self._server = server
        self._health = health
        self._streams = streams
        self._credentials = credentials

    def bind(self, address: str) -> int:
        """Listen on `address` (`host:port`, or `unix:path`) and return the port.

        Port 0 means any free one. Raise CannotListen.
        """
        check_free(address)
        try:
            if self._credentials is not None:
                return self._server.add_secure_port(address, self._credentials)
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotListen(address, str(error)) from error

    def bind_inside(self, path: str) -> None:
        """Listen on a Unix socket in plain text, for callers within the process; they authenticate as all do."""
        self._server.add_insecure_port(f"unix:{path}")

    async def start(self) -> None:
        """Begin to serve; health checks get SERVING."""
        await self._server.start()
        self._streams.start()

    async def ready(self, able: bool) -> None:
        """Set what health checks get; after `stop` it stays NOT_SERVING."""
        self._health.set(able)

    def samples(self) -> Samples:
        """Return the metrics of the streams."""
        return self._streams.samples()

    async def stop(self, grace: float) -> None:
        """Set NOT_SERVING, end streams, reject new calls, and cancel those not done within `grace` seconds."""
        self._health.stop()
        await self._streams.close()
        await self._server.stop(grace)

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()


async def build_server(
    services: Services,
    streams: Streams,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    transport: TransportSettings,
    credentials: grpc.ServerCredentials | None = None,
    reflection: bool = True,
) -> ApiServer:
    """Return a server that is not yet bound; without `credentials` it speaks plain text."""
    start_poller()
    server = grpc.aio.server(interceptors=tuple(interceptors), options=transport.options())
    generic: Any = GenericServer(server)
    services.add_to(generic)
    health = Health(NAMES)
    add_HealthServicer_to_server(health, generic)
    if reflection:
        add_reflection(server, [*NAMES, HEALTH])
    return ApiServer(server, health, streams, credentials)
