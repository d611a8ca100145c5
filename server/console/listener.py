"""The console's listener: HTTP by uvicorn in the loop that is there, with TLS where it is configured.

The socket is our own: uvicorn's server takes over signals and exits the process when the port is taken.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from server.config import split_address
from server.console.app import build_app
from server.console.options import ConsoleOptions
from server.console.permissions import Permissions
from server.console.service import Service
from server.console.sessions import Sessions
from server.console.topics import Topics
from server.console.uploads import Uploads
from server.console.visit import Console

MOST_CONNECTIONS = 1000
"""Connections at once: browsers keep up to six each."""

STOP_SECONDS = 2.0
"""Seconds that answers have to notice that their browser was cut off."""

log = logging.getLogger(__name__)


class CannotOpenConsole(Exception):
    """The console cannot be served. `str()` of it is a sentence for people."""


@asynccontextmanager
async def open_console(options: ConsoleOptions) -> AsyncIterator[str]:
    """Serve the console inside the block and lend its address for browsers. Raise CannotOpenConsole."""
    service, topics, uploads = Service(options.address, options.credentials), Topics(), Uploads()
    sessions = Sessions(options.secret, options.secure)
    cookie = "__Host-mailing-form" if options.secure else "mailing-form"
    console = Console(options, service, topics, sessions, Permissions(service), uploads, cookie)
    http = _Http(Config(
        build_app(console, _hosts(options)),
        http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None, log_level=logging.ERROR,
        access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=65,
    ))  # fmt: skip
    sweeping = asyncio.create_task(topics.sweep())
    try:
        yield _address(options, await http.start(options))
    finally:
        await http.stop()
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        await topics.close()
        await service.close()
        uploads.close()


class _Http:
    """The connections."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._tls: _Tls | None = None

    async def start(self, options: ConsoleOptions) -> int:
        """Listen and return the port. Raise CannotOpenConsole."""
        self._config.load()
        host, port = split_address(options.listen)
        try:
            if options.certificate and options.key:
                self._tls = _Tls(options.certificate, options.key)
            loop, context = asyncio.get_running_loop(), self._tls.context if self._tls else None
            self._server = await loop.create_server(self._connect, host.strip("[]"), port, ssl=context)
        except (OSError, ssl.SSLError) as error:
            reason = (error.strerror or str(error)).lower()
            raise CannotOpenConsole(f"Cannot listen on {options.listen} (MAILING_CONSOLE_LISTEN): {reason}.") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and end every connection: pages that are open come back when the console does."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if tasks := list(self._state.tasks):
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._server.wait_closed()

    def _connect(self) -> asyncio.Protocol:
        if self._tls:
            self._tls.refresh()
        if len(self._state.connections) >= MOST_CONNECTIONS:
            return _Refused()
        return HttpToolsProtocol(self._config, self._state, {})


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Tls:
    """TLS from PEM files that may change: a new connection uses them as they are then, if they are valid."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate, key)
        self._seen = self._times()

    def refresh(self) -> None:
        """Read the files again if they have changed."""
        seen = self._times()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            # Tried on another one first: a failed attempt leaves a context without its pair.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*self._files)
            self.context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            log.error("the console keeps its last certificate: %s", error)

    def _times(self) -> tuple[float, ...]:
        return tuple(path.stat().st_mtime if path.exists() else 0.0 for path in self._files)


def _address(options: ConsoleOptions, port: int) -> str:
    if options.public_url:
        return options.public_url.rstrip("/")
    return f"http{'s' if options.certificate else ''}://{split_address(options.listen)[0]}:{port}"


def _hosts(options: ConsoleOptions) -> Sequence[str]:
    """Return the names by which browsers may know the console.

    Without sign-in only those: the request of a page of another site carries its own name. With sign-in the cookie
    is bound to the name, so any does.
    """
    if not options.everybody:
        return ()
    host = split_address(options.listen)[0].strip("[]")
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        return ()
    own = [urlsplit(options.public_url).hostname or ""] if options.public_url else []
    return ["localhost", "127.0.0.1", "::1", host, *own]
