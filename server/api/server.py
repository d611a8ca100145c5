"""Puts the services, the interceptors, health and reflection together into one server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from prometheus_client import CollectorRegistry

from dispatcher.model.records import DispatchSettings
from mailing.v1 import (
    admin_service_pb2,
    client_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
)
from mailing.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from mailing.v1.client_service_pb2_grpc import add_ClientServiceServicer_to_server
from mailing.v1.mailing_service_pb2_grpc import add_MailingServiceServicer_to_server
from mailing.v1.message_service_pb2_grpc import add_MessageServiceServicer_to_server
from server.api.encoding.changes import encoded_mailing
from server.api.grpc_poller import start_poller
from server.api.interceptors.decoding import DecodingInterceptor
from server.api.interceptors.errors import ErrorInterceptor
from server.api.interceptors.handlers import WritingInterceptor
from server.api.interceptors.identity import IdentityInterceptor
from server.api.interceptors.limits import CallLimits, LimitInterceptor
from server.api.interceptors.metrics import MetricsInterceptor
from server.api.interceptors.request_ids import RequestInterceptor
from server.api.interceptors.tracing import TracingInterceptor
from server.api.reflection import add_reflection
from server.api.services.admin_dispatch import DispatchCalls
from server.api.services.admin_endpoints import EndpointCalls
from server.api.services.admin_log import LogCalls
from server.api.services.admin_service import AdminService
from server.api.services.client_service import ClientService
from server.api.services.delivery_service import DELIVERY, DeliveryService
from server.api.services.mailing_service import MailingService
from server.api.services.message_service import MessageService
from server.auth import Authenticator
from server.domain.previews import FrequencyCap
from server.endpoints.probes import EndpointProbes
from server.observability.metrics.samples import Samples, added
from server.observability.tracing import CallTracer
from server.storage.change_feed import ChangeFeedStore
from server.storage.database import Database, Pool
from server.storage.endpoints import EndpointStore
from server.storage.events import EventStore
from server.storage.installation import read_installation
from server.storage.previews import PreviewStore
from server.storage.progress import ProgressStore
from server.storage.replicas import ReplicaStore
from server.watch import AdminStreams, Streams, StreamSettings

SERVED = (
    client_service_pb2.DESCRIPTOR.services_by_name["ClientService"],
    mailing_service_pb2.DESCRIPTOR.services_by_name["MailingService"],
    message_service_pb2.DESCRIPTOR.services_by_name["MessageService"],
    DELIVERY,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)
NAMES = tuple(service.full_name for service in SERVED)
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_HEALTH = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}


class CannotListen(Exception):
    """The address cannot be listened on. `str()` of it is a sentence for people."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"Cannot listen on {address}: {reason}.")


@dataclass(frozen=True, slots=True)
class RpcSettings:
    """How the API is served. Sizes are in bytes, times in seconds."""

    max_message_bytes: int = 4 * 1024 * 1024
    acquire_timeout: float = 5.0
    """How long a call waits for a database connection."""
    keepalive_time: float = 20.0
    keepalive_timeout: float = 8.0
    """A connection that died is noticed within the sum of both."""
    min_ping_interval: float = 5.0
    """How often a caller may ping a connection without data on it."""
    handshake_timeout: float = 10.0
    """How long a new connection may take to say what it wants."""
    reader_patience: float = 60.0
    """How long a stream may not be read before it ends."""
    limits: CallLimits = field(default_factory=CallLimits)
    """What one caller may take."""
    streams_per_connection: int = 500
    """Calls and streams at once over one connection; callers keep more of them waiting. Without a limit
    gRPC lets the calls that a hostile caller begins and takes back pile up in front of everybody's."""
    connection_age: float = 3600.0
    """After about so long a connection is to be made anew, so that load spreads over new replicas."""
    connection_grace: float = 600.0
    """How long the calls of such a connection may still go on."""
    tracer: CallTracer | None = None
    """Takes note of every call."""
    streams: StreamSettings = field(default_factory=StreamSettings)
    log_retention: float = 168 * 3600.0
    """How long the log is kept."""
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    """How dispatchers work unless something else is set at run time."""
    endpoints: frozenset[str] = frozenset({"default"})
    """The names of endpoints that mailings may name; an empty name means `default`."""
    endpoint_rates: Mapping[str, float] = field(default_factory=dict)
    """Messages a second that endpoints take at the most, by name; those that are missing have no limit."""
    frequency_cap: FrequencyCap = field(default_factory=FrequencyCap)
    authenticator: Authenticator = field(default_factory=Authenticator)
    """Who may call; everybody if nothing else is said."""
    credentials: grpc.ServerCredentials | None = None
    """TLS; plain text without."""
    reflection: bool = True
    max_metadata_bytes: int = 64 * 1024
    """Room for long tokens, and for a proper answer to those that are too long."""

    def options(self) -> list[tuple[str, int]]:
        """Return gRPC's channel arguments."""
        return [
            ("grpc.so_reuseport", 0),  # or a second process would share the port unnoticed
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", 2 * self.max_metadata_bytes),
            ("grpc.keepalive_time_ms", int(self.keepalive_time * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout * 1000)),
            # By itself gRPC gives the answer to a ping a minute, whatever the keepalive's time limit is.
            ("grpc.http2.ping_timeout_ms", int(self.keepalive_timeout * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            # Whoever pings more often, beyond two times, is sent away.
            ("grpc.http2.min_ping_interval_without_data_ms", int(self.min_ping_interval * 1000)),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.max_concurrent_streams", self.streams_per_connection),
            ("grpc.max_connection_age_ms", int(self.connection_age * 1000)),
            ("grpc.max_connection_age_grace_ms", int(self.connection_grace * 1000)),
            ("grpc.server_handshake_timeout_ms", int(self.handshake_timeout * 1000)),
            # Watchers of a replica that went away come to another one all at once; by itself gRPC
            # would cancel some of more than a thousand calls that were not begun yet.
            ("grpc.server.max_pending_requests", 20_000),
            ("grpc.server.max_pending_requests_hard_limit", 30_000),
        ]


class RpcServer:
    """The API of one replica: `bind`, `start`, and at the end `stop`."""

    def __init__(
        self,
        server: grpc.aio.Server,
        health: HealthServicer,
        streams: Streams,
        admin: AdminStreams,
        database: Database,
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        self._server = server
        self._credentials = credentials
        self._health = health
        self._streams = streams
        self._admin = admin
        self._database = database

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

    async def start(self) -> None:
        """Begin to serve and say so to health checks."""
        await self._server.start()
        self._streams.start()
        self._admin.start()

    async def ready(self, able: bool) -> None:
        """Say to health checks whether calls can be answered; after `stop` it is no any more."""
        for name in ("", *NAMES):
            await self._health.set(name, _HEALTH[able])

    def samples(self) -> Samples:
        """Return how the API does, as metrics show it."""
        errors: Samples = {"mailing_database_errors_total": {("api",): self._database.failures}}
        return added([self._streams.samples(), self._admin.samples(), errors])

    async def stop(self, grace: float) -> None:
        """Say NOT_SERVING, end streams, refuse new calls, and cancel those not done within `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._streams.close()
        await self._admin.close()
        await self._server.stop(grace)

    async def wait(self) -> None:
        """Return when the server was stopped."""
        await self._server.wait_for_termination()


def check_free(address: str) -> None:
    """Raise CannotListen if a socket cannot be bound there: gRPC would not say why, but log it."""
    if address.startswith(("unix:", "unix-abstract:", "vsock:")):
        return
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise CannotListen(address, (error.strerror or str(error)).lower()) from error


async def build_server(
    pool: Pool,
    hint: Callable[[], None],
    registry: CollectorRegistry,
    settings: RpcSettings | None = None,
    probes: EndpointProbes | None = None,
) -> RpcServer:
    """Return a server on the ledger of `pool`, not yet bound.

    `hint` is called after every write that a dispatcher in this process should see at once.
    `probes` knows the endpoints and makes requests outside of the ledger; none without it.
    Reads what the database was set up with: takes some 100 ms, raises DatabaseUnavailable.
    """
    settings, probes = settings or RpcSettings(), probes or EndpointProbes()
    database = Database(pool, settings.acquire_timeout)
    installation = await read_installation(database)
    change_feed, progress = ChangeFeedStore(database, installation.buckets), ProgressStore(database)
    streams = Streams(change_feed, progress, await change_feed.epoch(), encoded_mailing, settings.streams)

    def changed() -> None:
        hint()
        streams.hint()

    interceptors = (
        RequestInterceptor(),
        MetricsInterceptor(registry),
        ErrorInterceptor(),
        *([TracingInterceptor(settings.tracer)] if settings.tracer else []),
        IdentityInterceptor(settings.authenticator),
        LimitInterceptor(settings.limits),
        DecodingInterceptor(),
        WritingInterceptor(settings.reader_patience),
    )
    start_poller()
    server = grpc.aio.server(interceptors=interceptors, options=settings.options())
    add_ClientServiceServicer_to_server(ClientService(database, installation), server)
    preview = PreviewStore(database, settings.frequency_cap, settings.endpoint_rates)
    mailings = MailingService(database, installation, changed, settings.endpoints, preview, probes)
    add_MailingServiceServicer_to_server(mailings, server)
    add_MessageServiceServicer_to_server(MessageService(database, installation), server)
    server.add_generic_rpc_handlers((DeliveryService(streams, progress).handler(),))
    dispatch = ReplicaStore(database, settings.dispatch, hint)
    admin = AdminStreams(
        dispatch, EventStore(database, installation.buckets), await change_feed.epoch(), settings.log_retention
    )
    calls = AdminService(
        DispatchCalls(dispatch, admin), EndpointCalls(EndpointStore(database), probes), LogCalls(admin)
    )
    add_AdminServiceServicer_to_server(calls, server)
    health = await _add_health(server)
    if settings.reflection:
        add_reflection(server, [*NAMES, HEALTH])
    return RpcServer(server, health, streams, admin, database, settings.credentials)


async def _add_health(server: grpc.aio.Server) -> HealthServicer:
    health = HealthServicer()
    for name in NAMES:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return health
