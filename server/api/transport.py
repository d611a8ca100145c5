"""Connections of the API: their limits as gRPC's channel arguments, and the addresses to listen on."""

from __future__ import annotations

import socket
from dataclasses import dataclass

_LARGEST = 2**31 - 1
"""The largest value of a channel argument."""


class CannotListen(Exception):
    """The address cannot be listened on. `str()` of it is a sentence for people."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"Cannot listen on {address}: {reason}.")


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """The limits of connections. Sizes are in bytes, times in seconds."""

    max_message_bytes: int = 8 << 20
    """Above this gRPC refuses a message by itself, without a reason; the interceptors have a lower limit."""
    max_metadata_bytes: int = 64 * 1024
    """Enough for long tokens, and for a proper answer to longer ones."""
    window_bytes: int = 32 * 1024
    """What a stream may hold before it is read. gRPC by itself lets it grow, by its measure of the line."""
    keepalive_time: float = 20.0
    keepalive_timeout: float = 8.0
    """A dead connection is noticed within the sum of both."""
    min_ping_interval: float = 5.0
    """Minimum interval between a caller's pings on a connection without data."""
    handshake_timeout: float = 10.0
    """Maximum duration of the TLS and HTTP/2 handshakes of a new connection."""
    streams_per_connection: int = 500
    """Maximum calls and streams at once over one connection; callers queue the rest. Without a limit
    gRPC lets the calls that a hostile caller begins and cancels pile up before all others."""
    connection_idle: float = 300.0
    """How long a connection may be without calls: callers reconnect by themselves."""
    connections: int = 10_000
    """Maximum connections at once; more are closed as they come."""
    connections_per_host: int = 1000
    """Maximum connections of one host; the newest above it are closed."""
    connection_age: float = 3600.0
    """Maximum age of a connection, approximately: callers reconnect, which spreads load over new replicas."""
    connection_grace: float = 4260.0
    """How long the calls of a connection may continue beyond its maximum age: longer than streams last,
    which the interceptors end with a reason."""

    def options(self) -> list[tuple[str, int]]:
        """Return gRPC's channel arguments."""
        return [
            ("grpc.so_reuseport", 0),  # or a second process would share the port unnoticed
            ("grpc.max_receive_message_length", min(self.max_message_bytes, _LARGEST)),
            ("grpc.http2.lookahead_bytes", self.window_bytes),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", 2 * self.max_metadata_bytes),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive_time)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.keepalive_timeout)),
            # By itself gRPC waits a minute for the answer to a ping, whatever the keepalive timeout is.
            ("grpc.http2.ping_timeout_ms", _milliseconds(self.keepalive_timeout)),
            ("grpc.keepalive_permit_without_calls", 1),
            # A caller that pings more often, beyond two strikes, is disconnected.
            ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(self.min_ping_interval)),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.max_concurrent_streams", self.streams_per_connection),
            ("grpc.max_connection_idle_ms", _milliseconds(self.connection_idle)),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_connection_age_ms", _milliseconds(self.connection_age)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(self.connection_grace)),
            ("grpc.server_handshake_timeout_ms", _milliseconds(self.handshake_timeout)),
            # The watchers of a replica that went away come to another one all at once; by itself gRPC
            # would cancel some of more than a thousand calls that have not begun.
            ("grpc.server.max_pending_requests", 20_000),
            ("grpc.server.max_pending_requests_hard_limit", 30_000),
        ]


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), _LARGEST)


def check_free(address: str) -> None:
    """Raise CannotListen if a socket cannot be bound there: gRPC would only log the reason."""
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
