"""How connections to the service are made: limits, keepalive, retries, proxies, TLS and the bearer token.

The token is sent as `authorization` metadata with every call. Without channel credentials
the connection is plain text, which suits loopback and private networks only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import grpc

from mailing.calls import FIRST_PAUSE, LONGEST_PAUSE, service_config

_LOOPBACK = re.compile(r"(unix:.*|(localhost|127\.[\d.]+|\[::1\])(:\d+)?)")
_TOKEN = re.compile(r"[!-~]+")
_MAX_RECEIVED_BYTES = 64 << 20
"""Answers are cut at 1 MiB; a single record or a report may be larger."""

_SCHEMES = ("unix:", "unix-abstract:", "vsock:", "dns:", "ipv4:", "ipv6:", "xds:")
"""The names of gRPC's own ways to find a service; what follows is left to it."""

_PING_AFTER = 30.0
_PING_TIMEOUT = 10.0
"""Seconds of silence after which a connection is tried, and for which its answer is awaited."""

Token = str | Callable[[], str]
"""A bearer token, or what returns the one for a call: it is asked for every call, so it should answer from
memory and renew in time."""


def product_version() -> str:
    """Return the version of this package, or "0" when it is not installed."""
    try:
        return version("mailing")
    except PackageNotFoundError:
        return "0"


def tls_credentials(
    ca_file: str | PathLike[str] | None = None,
    cert_file: str | PathLike[str] | None = None,
    key_file: str | PathLike[str] | None = None,
) -> grpc.ChannelCredentials:
    """Return credentials for TLS from PEM files.

    `ca_file` is the authority to trust, by default gRPC's own list; `cert_file` and `key_file` are
    the caller's certificate, for services that require one. Raise OSError, and ValueError for one
    of the two without the other.
    """
    if (cert_file is None) != (key_file is None):
        raise ValueError("a certificate needs its key, and a key its certificate")
    authority, chain, key = (
        None if path is None else Path(path).read_bytes() for path in (ca_file, cert_file, key_file)
    )
    return grpc.ssl_channel_credentials(authority, key, chain)


def check_address(address: str) -> None:
    """Raise ValueError for what is no address: gRPC would look it up, and fail at the first call."""
    if address.startswith(_SCHEMES):
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536) or "/" in host:
        raise ValueError(
            f"{address!r} is no address of a service such as mailing.example.com:50051 or unix:/run/mailing"
        )


def channel_options(address: str) -> list[tuple[str, Any]]:
    """Return gRPC's options of a channel to `address` ("host:port" or "unix:/path"). Raise ValueError for another."""
    check_address(address)
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_RECEIVED_BYTES),
        ("grpc.primary_user_agent", f"mailing-python/{product_version()}"),
        ("grpc.service_config", service_config()),
        ("grpc.initial_reconnect_backoff_ms", int(FIRST_PAUSE * 1000)),
        ("grpc.max_reconnect_backoff_ms", int(LONGEST_PAUSE * 1000)),
        ("grpc.keepalive_time_ms", int(_PING_AFTER * 1000)),
        ("grpc.keepalive_timeout_ms", int(_PING_TIMEOUT * 1000)),
        # By itself gRPC waits a minute for the answer to a ping, and sends two while nothing else is sent.
        ("grpc.http2.ping_timeout_ms", int(_PING_TIMEOUT * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if _LOOPBACK.fullmatch(address):
        # A proxy named in the environment cannot reach this machine's own ports.
        options.append(("grpc.enable_http_proxy", 0))
    return options


class AuthorizedChannel:
    """A channel that adds the token to every call; asyncio's channels have the same methods.

    Raise ValueError for a token with characters that no header can carry, such as the … of a shortened one.
    """

    def __init__(self, channel: Any, token: Token) -> None:
        if isinstance(token, str) and not _TOKEN.fullmatch(token):
            raise ValueError("the token has a space or another character that no token has: copy the whole of it anew")
        self._channel = channel
        self._token = token

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._channel, name)
        return self._authorized(made) if name in _KINDS else made

    def _authorized(self, make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: _AuthorizedCall(make(*args, **kwargs), self._metadata)

    def _metadata(self) -> tuple[str, str]:
        token = self._token if isinstance(self._token, str) else self._token()
        return "authorization", f"Bearer {token}"


_KINDS = frozenset({"unary_unary", "unary_stream", "stream_unary", "stream_stream"})


class _AuthorizedCall:
    """What a channel makes for one method."""

    def __init__(self, call: Any, metadata: Callable[[], tuple[str, str]]) -> None:
        self._call = call
        self._metadata = metadata

    def __call__(self, *args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return self._call(*args, metadata=[*(metadata or ()), self._metadata()], **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return `future` or `with_call`, which take the same arguments."""
        return _AuthorizedCall(getattr(self._call, name), self._metadata)
