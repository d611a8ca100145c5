"""HTTP for operators in the loop that is there: a few fixed paths, read only, one request per connection.

Starlette routes and uvicorn speaks HTTP. The listener is our own: uvicorn's takes over signals, exits the process
when the port is taken and wakes up ten times a second. Callers are not trusted: the size of a request, the
time it takes and the number of connections are bounded, and nothing of a request is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

LARGEST_HEAD = 8192
"""Bytes of a request's line and headers."""

LIFETIME = 5.0
"""Seconds after which a connection is cut off, whatever it waits for."""

MOST_CONNECTIONS = 32
"""Connections at once; one more cuts off the oldest, so that those who do nothing never keep a probe out."""

_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), (b"connection", b"close")]


class AdminHttp:
    """Serve `routes`, whose answers take no longer than a second, from `start` to `stop`."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._state = ServerState()
        self._state.default_headers = _HEADERS
        self._config = Config(
            Starlette(routes=routes),
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,  # what callers do wrong is a warning
            access_log=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=LARGEST_HEAD,
        )
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port, which for 0 is any free one. Raise OSError."""
        self._config.load()
        self._server = await asyncio.get_running_loop().create_server(self._connect, host.strip("[]"), port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
            for connection in self._state.connections:
                connection.transport.abort()
            await asyncio.gather(*self._state.tasks)
            await self._server.wait_closed()

    def _connect(self) -> _Connection:
        return _Connection(self._config, self._state, {})


class _Connection(H11Protocol):
    """A connection that does not stay, and makes room for itself."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.made_at = self.loop.time()
        self._end = self.loop.call_later(LIFETIME, transport.abort)
        if len(self.connections) > MOST_CONNECTIONS:
            oldest = min((one for one in self.connections if isinstance(one, _Connection)), key=lambda one: one.made_at)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)
