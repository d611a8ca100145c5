"""The fast sender: requests to one endpoint over a pool of keep-alive connections.

Owns the pool: who waits for a connection, who gets which, when connections are opened and
dropped, and every deadline. The way of a request is `send`, from top to bottom; a request
that finds an idle connection costs one future and no timer.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple

from dispatcher.delivery.http1.connection import Connection, KnownAnswers
from dispatcher.delivery.http1.resolver import Address, Addresses
from dispatcher.delivery.http1.tls import tls_context
from dispatcher.delivery.protocol import OUT_OF_FILES, encode_body, parse_target
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass
from dispatcher.ports import MayStart
from dispatcher.tracing import TraceHeaders

IDLE_SECONDS = 4.0
"""How long a connection may be idle: less than the 5 s after which the hastiest common servers close theirs."""

LIFETIME = 300.0
"""How long a connection is used, so that a name that moves is followed under full load, too."""

SWEEP_SECONDS = 0.02
"""How far apart two sweeps are at least, and so how late a deadline may be noticed."""

_DISCONNECT = ErrorClass.DISCONNECT


class _Failure(Exception):
    """There is no connection to be had, and why."""

    def __init__(self, error: ErrorClass) -> None:
        self.error = error


class PoolStatus(NamedTuple):
    """What a pool holds at a moment."""

    slots: int = 0
    """Connections open or being opened, and those promised to requests that wait."""
    open: int = 0
    dialing: int = 0
    waiting: int = 0
    sweeping: bool = False
    """Whether a timer runs that ends what is overdue."""


def _with_headers(request: bytes, headers: Mapping[str, str]) -> bytes:
    """Return the request with more headers behind its first line."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
    first, separator, rest = request.partition(b"\r\n")
    return first + separator + lines + rest


class FastSender:
    """Sends messages to one endpoint by HTTP/1.1. Implements `dispatcher.ports.Sender`.

    To be used from one event loop; `trace_headers` gives each request more headers, `addresses`
    are those of the URL's host unless given. Raises ValueError for an endpoint whose URL, token
    or CA file is unusable.
    """

    def __init__(
        self, endpoint: Endpoint, trace_headers: TraceHeaders | None = None, addresses: Addresses | None = None
    ) -> None:
        self._trace_headers = trace_headers
        target = parse_target(endpoint)
        head = "".join(f"{name}: {value}\r\n" for name, value in target.headers)
        path = target.path.replace("%", "%%")
        self._template = (
            f"POST {path}%d HTTP/1.1\r\n{head.replace('%', '%%')}Idempotency-Key: %d\r\nContent-Length: %d\r\n\r\n%b"
        ).encode("ascii")
        self._tls = tls_context(endpoint) if target.secure else None
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])
        self._host = target.host
        self._addresses = addresses or Addresses(target.host, target.port)
        self._total_timeout = endpoint.total_timeout
        self._connect_timeout = endpoint.connect_timeout
        self._max_body = endpoint.max_response_bytes
        self._max_connections = endpoint.max_concurrency
        self.known_answers: KnownAnswers = {}
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._slots = 0  # connections open or being opened, plus those promised to who waits
        self._waiting: deque[tuple[float, asyncio.Future[Connection | None]]] = deque()
        self._dials: dict[asyncio.Future[None], asyncio.Timeout] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_at = 0.0
        self._closed = False

    @property
    def status(self) -> PoolStatus:
        """What the pool holds now."""
        return PoolStatus(
            self._slots, len(self._connections), len(self._dials), len(self._waiting), self._sweep is not None
        )

    async def send(
        self, message_id: int, phone: str, text: str, at_most_once: bool = False, may_start: MayStart | None = None
    ) -> Answer | None:
        """POST one message and return what it came to. See `dispatcher.ports.Sender.send`."""
        started = monotonic()
        deadline = started + self._total_timeout
        try:
            body = encode_body(message_id, phone, text)
        except ValueError:
            return Answer(0, b"", None, ErrorClass.PROTOCOL, False, 0.0)
        request = self._template % (message_id, message_id, len(body), body)
        if self._trace_headers is not None:
            request = _with_headers(request, self._trace_headers())
        connection = self._idle.pop() if self._idle else None
        future: asyncio.Future[Answer] | None = None
        answer: Answer | None = None
        try:
            while True:
                if connection is None:
                    connection = await self._connect(deadline, again=future is not None)
                if may_start is not None and not may_start():
                    self._put_back(connection)
                    return answer
                may_repeat = connection.used and future is None and not at_most_once
                future = connection.request(request, started, deadline)
                answer = await future
                if answer.error is not _DISCONNECT or connection.touched or not may_repeat:
                    return answer
                connection = None  # it had been closed while idle, which says nothing about this request
        except _Failure as failure:
            return Answer(0, b"", None, failure.error, future is not None, monotonic() - started)
        except asyncio.CancelledError:
            if connection is not None and future is not None:
                connection.abandon(future)
            raise

    async def close(self) -> None:
        """Close every connection; requests under way end with DISCONNECT."""
        self._closed = True
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(_Failure(_DISCONNECT))
        self._waiting.clear()
        for connection in tuple(self._connections):
            connection.abort()
        for timeout in self._dials.values():
            if not timeout.expired():
                timeout.reschedule(0.0)
        while unfinished := {*self._dials, *self._closing}:
            await asyncio.wait(unfinished)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        await self._addresses.close()

    # The pool: who gets a connection.

    async def _connect(self, deadline: float, again: bool) -> Connection:
        """Return a connection that is not idle: a new one, or one that has just become free.

        With `again` the request has waited before and goes first. Raise _Failure.
        """
        if self._closed:
            raise _Failure(_DISCONNECT)
        while self._slots >= self._max_connections:
            connection = await self._wait(deadline, again)
            if connection is None:
                break
            if connection.open:
                return connection
            again = True
        else:
            self._slots += 1
        try:
            return await self._dial(deadline)
        except BaseException:
            self._vacate()
            raise

    async def _wait(self, deadline: float, first: bool) -> Connection | None:
        """Wait for a connection, or, with None, for the right to open one."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft((deadline, waiter))
        else:
            self._waiting.append((deadline, waiter))
        self._sweep_by(deadline)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_back(waiter.result())
            raise

    def _hand_back(self, connection: Connection | None) -> None:
        if connection is None:
            self._vacate()
        elif connection.open:
            self.connection_ready(connection, monotonic())

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiting:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _vacate(self) -> None:
        """Give a free slot to who waits longest."""
        waiter = self._next_waiter()
        if waiter is None:
            self._slots -= 1
        else:
            waiter.set_result(None)

    def connection_ready(self, connection: Connection, now: float) -> None:
        """Take back a connection that may take another request."""
        if now > connection.retires_at:
            connection.abort()
            return
        connection.deadline = now + IDLE_SECONDS
        if self._waiting and (waiter := self._next_waiter()) is not None:
            waiter.set_result(connection)
        else:
            self._idle.append(connection)

    def _put_back(self, connection: Connection) -> None:
        """Take back a connection on which nothing was written: to the endpoint it was idle all the while."""
        idle_until = connection.deadline
        connection.used = True
        self.connection_ready(connection, monotonic())
        connection.deadline = min(connection.deadline, idle_until)

    def connection_gone(self, connection: Connection) -> None:
        """Forget a connection that must not be used any more."""
        if not connection.closed.done():
            self._closing.add(connection.closed)
            connection.closed.add_done_callback(self._closing.discard)
        if connection in self._connections:
            self._connections.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._vacate()

    # Time: one sweep over everything that has a deadline.

    def _sweep_by(self, deadline: float) -> None:
        """Make sure of a sweep at `deadline`, or SWEEP_SECONDS from now."""
        now = monotonic()
        at = max(deadline, now + SWEEP_SECONDS)
        if self._sweep is not None:
            if self._sweep_at <= at:
                return
            self._sweep.cancel()
        self._sweep_at = at
        self._sweep = asyncio.get_running_loop().call_later(at - now, self._sweep_all)

    def _sweep_all(self) -> None:
        """End what is overdue, then sleep until something may be.

        That is the next deadline known, but at most the total timeout or IDLE_SECONDS: nothing
        that begins from now on, a request or idleness, can be overdue before. Without
        connections and waiters it stops.
        """
        self._sweep = None
        now = monotonic()
        for connection in [one for one in self._connections if one.deadline <= now]:
            connection.abort(ErrorClass.TIMEOUT)
        for deadline, waiter in self._waiting:
            if deadline <= now and not waiter.done():
                waiter.set_exception(_Failure(ErrorClass.TIMEOUT))
        self._waiting = deque(entry for entry in self._waiting if not entry[1].done())
        if self._connections or self._waiting:
            deadlines = [one.deadline for one in self._connections] + [deadline for deadline, _ in self._waiting]
            self._sweep_by(min(now + self._total_timeout, now + IDLE_SECONDS, *deadlines))

    # Dialing.

    async def _dial(self, deadline: float) -> Connection:
        """Return a new connection within the connect timeout and the deadline. Raise _Failure."""
        if self._closed:
            raise _Failure(_DISCONNECT)
        now = monotonic()
        limit = min(deadline, now + self._connect_timeout)
        ended = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(limit - now) as self._dials[ended]:
                sock = await self._reach(limit)
                connection = await self._open(sock)
        except TimeoutError:
            if self._closed:
                raise _Failure(_DISCONNECT) from None
            raise _Failure(ErrorClass.TIMEOUT if limit == deadline else ErrorClass.CONNECT) from None
        finally:
            del self._dials[ended]
            ended.set_result(None)
        if self._closed:
            connection.abort()  # close() came while it was being opened, and could not see it
        if not connection.open:
            raise _Failure(_DISCONNECT)
        self._connections.add(connection)
        self._sweep_by(min(deadline, monotonic() + IDLE_SECONDS))
        return connection

    async def _reach(self, limit: float) -> socket.socket:
        """Return a socket connected to the first address that answers, each having its share of the time."""
        try:
            candidates = await self._addresses.candidates()
        except (OSError, UnicodeError):  # the latter for names that no resolver can be asked for
            raise _Failure(ErrorClass.RESOLVE) from None
        for left, address in zip(range(len(candidates), 0, -1), candidates, strict=True):
            try:
                async with asyncio.timeout((limit - monotonic()) / left if left > 1 else None):
                    return await _connect_socket(address)
            except OSError as error:  # TimeoutError is one
                if error.errno in OUT_OF_FILES:
                    raise _Failure(ErrorClass.LOCAL) from None
                self._addresses.demote(address)
        raise _Failure(ErrorClass.CONNECT)

    async def _open(self, sock: socket.socket) -> Connection:
        """Return the connection over a connected socket, TLS included."""
        connection = Connection(self, self._max_body, monotonic() + LIFETIME)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, sock=sock, ssl=self._tls, server_hostname=self._host if self._tls else None
            )
        except OSError:  # ssl.SSLError is one
            sock.close()
            raise _Failure(ErrorClass.TLS if self._tls else _DISCONNECT) from None
        except asyncio.CancelledError:
            connection.abort()  # it may stand already
            if not connection.closed.done():
                connection.closed.set_result(None)  # uvloop closes what it was opening, and tells nobody
            raise
        return connection


async def _connect_socket(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
