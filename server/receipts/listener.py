"""HTTP for gateways, in the loop that is there: kept-alive connections, bounded in number, time and size.

uvicorn speaks HTTP; the socket is opened here, as uvicorn's own listener takes over signals and exits the process when
the port is taken. Callers are not trusted, and nothing of a request is logged.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from server.auth.watched_file import FileWatch

log = logging.getLogger(__name__)

LARGEST_REQUEST = 96 * 1024
"""Bytes of a request with its line and headers: one that is longer is cut off."""

PATIENCE = 10.0
"""Seconds in which a request has to arrive and be answered."""

IDLE = 30
"""Seconds that a connection may wait for its next request."""

MOST_CONNECTIONS = 1000
"""Connections at once; one more cuts off the oldest."""

TLS_CHECK = 10.0
"""Seconds between two looks at the files of the certificate."""


class ReceiptsListener:
    """Serve `app` from `start` to `stop`; with a certificate and its key, by TLS."""

    def __init__(self, app: Callable[..., Any], certificate: tuple[Path, Path] | None = None) -> None:
        self._state = ServerState()
        self._state.default_headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
        self._config = Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,  # what callers do wrong is a warning
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE,
        )
        self._certificate = certificate
        self._server: asyncio.Server | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port, which for 0 is any free one. Raise OSError; ssl.SSLError is one."""
        self._config.load()
        context = None
        if self._certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(*self._certificate)
            self._renewal = asyncio.create_task(_renew(context, *self._certificate), name="certificate of receipts")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, host.strip("[]"), port, ssl=context)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, let requests under way end, and close every connection."""
        if self._renewal is not None:
            self._renewal.cancel()
        if self._server is None:
            return
        self._server.close()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=PATIENCE)
        for connection in self._state.connections:
            connection.transport.abort()
        await self._server.wait_closed()

    def _connect(self) -> _Connection:
        return _Connection(self._config, self._state, {})


class _Connection(HttpToolsProtocol):
    """A connection whose requests are bounded, and that makes room for others."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.made_at = self.loop.time()
        self._received = 0
        self._end = self.loop.call_later(PATIENCE, transport.abort)
        if len(self.connections) > MOST_CONNECTIONS:
            oldest = min((one for one in self.connections if isinstance(one, _Connection)), key=lambda one: one.made_at)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > LARGEST_REQUEST:
            self.transport.abort()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._end.cancel()
        self._end = self.loop.call_later(PATIENCE, self.transport.abort)

    def on_response_complete(self) -> None:
        self._received = 0
        self._end.cancel()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)


async def _renew(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    """Load the certificate again when its files change; one that cannot be used changes nothing."""
    watch = FileWatch(certificate, private_key)
    while True:
        await asyncio.sleep(TLS_CHECK)
        if watch.changed():
            try:
                context.load_cert_chain(certificate, private_key)
            except OSError as error:
                log.error("the TLS certificate of the receipts listener stays in force: %s", error)
