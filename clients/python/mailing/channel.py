"""Opens channels to the service: limits, proxies, TLS and the bearer token.

The token is sent as `authorization` metadata with every call. Without channel credentials
the connection is plain text, which suits loopback and private networks only.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import grpc

_LOOPBACK = re.compile(r"(unix:.*|(localhost|127\.[\d.]+|\[::1\])(:\d+)?)")
_MAX_RECEIVED_BYTES = 64 << 20
"""A full page of a thousand mailings with long texts is larger than gRPC's default of 4 MB."""


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


def open_channel(address: str, token: str | None, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """Return a channel to `address` ("host:port" or "unix:/path"); it connects at its first call."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_RECEIVED_BYTES),
        ("grpc.primary_user_agent", f"mailing-python/{product_version()}"),
    ]
    if _LOOPBACK.fullmatch(address):
        # A proxy named in the environment cannot reach this machine's own ports.
        options.append(("grpc.enable_http_proxy", 0))
    channel = (
        grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
    )
    return grpc.intercept_channel(channel, _BearerToken(token)) if token else channel


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _BearerToken(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the token to every call."""

    def __init__(self, token: str) -> None:
        self._entry = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: grpc.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: grpc.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)

    def _with_token(self, details: grpc.ClientCallDetails) -> _Details:
        return _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), self._entry],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
