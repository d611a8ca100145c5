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
from server.console.http_api import HttpApi
from server.console.options import ConsoleOptions
from server.console.permissions import Permissions
from server.console.service import Service
from server.console.sessions import Sessions
from server.console.topics import Topics
from server.console.uploads import Uploads
from server.console.visit import Console

MOST_CONNECTIONS = 1000
"""Connections at once: browsers keep up to six each. One more takes the place of the oldest that asks for nothing."""

HEAD_SECONDS = 10.0
"""Seconds in which the line and the headers of a request have to arrive."""

HEAD_BYTES = 64 << 10
"""Bytes that they may have."""

UNREAD_SECONDS = 20.0
"""Seconds after which a connection is cut off whose reader does not take what waits for it."""

STOP_SECONDS = 2.0
"""Seconds that answers have to notice that their browser was cut off."""

log = logging.getLogger(__name__)


class CannotOpenConsole(Exception):
    """The console cannot be served. `str()` of it is a sentence for people."""


@asynccontextmanager
async def open_console(options: ConsoleOptions) -> AsyncIterator[str]:
    """Serve the console inside the block and lend its address for browsers. Raise CannotOpenConsole."""
    service, topics, uploads = Service(options.address, options.credentials), Topics(), Uploads()
    api = HttpApi(options.address, options.credentials)
    sessions = Sessions(options.secret, options.secure)
    cookie = "__Host-mailing-form" if options.secure else "mailing-form"
    console = Console(options, service, topics, sessions, Permissions(service), uploads, cookie)
    http = _Http(Config(
        build_app(console, api, _hosts(options)),
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
        await api.close()
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
        if len(self._state.connections) >= MOST_CONNECTIONS and not self._make_room():
            return _Refused()
        return _Connection(self._config, self._state, {})

    def _make_room(self) -> bool:
        """Cut off the oldest connection without a request and return whether there was one."""
        connections = [one for one in self._state.connections if isinstance(one, _Connection) and one.is_idle]
        if not connections:
            return False
        oldest = min(connections, key=lambda one: one.made_at)
        self._state.connections.discard(oldest)
        oldest.transport.abort()
        return True


class _Connection(HttpToolsProtocol):
    """A connection whose peer has to send and to read in time. Requests find its end in their state, as `abort`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.made_at = self.loop.time()
        self.app_state = {"abort": transport.abort}
        self._head_bytes: int | None = 0
        self._late = self.loop.call_later(HEAD_SECONDS, transport.abort)
        self._unread: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._late.cancel()
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._late.cancel()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._limit_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_reading()

    def _limit_reading(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)
        self.resume_writing()


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
