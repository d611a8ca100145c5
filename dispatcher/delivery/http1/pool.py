"""The fast sender: requests to one endpoint over a pool of keep-alive connections.

Owns the pool: who waits for a connection, who gets which, when connections are opened and
dropped, and every deadline. A request that finds an idle connection is written at once, and is
handed its answer by the connection: it costs no task, no future and no timer.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import NamedTuple

from dispatcher.delivery.batching import messages_of
from dispatcher.delivery.described import DescribedRequests, NotReady
from dispatcher.delivery.http1.connection import Connection, KnownAnswers
from dispatcher.delivery.http1.resolver import Address, Addresses
from dispatcher.delivery.http1.tls import tls_context
from dispatcher.delivery.protocol import OUT_OF_FILES, encode_body, parse_target
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass
from dispatcher.ports import Request
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


class _Waiting(NamedTuple):
    """A request that has no connection yet; `again` says that it was written on one before."""

    request: Request
    data: bytes
    started: float
    deadline: float
    again: bool

    def fail(self, error: ErrorClass) -> None:
        """End the request without a connection."""
        self.request.answered(Answer(0, b"", None, error, self.again, monotonic() - self.started))


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
        self.renew(endpoint)
        self._tls = tls_context(endpoint) if target.secure else None
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])
        self._host = target.host
        self._addresses = addresses or Addresses(target.host, target.port)
        self._total_timeout = endpoint.total_timeout
        self._connect_timeout = endpoint.connect_timeout
        self._max_body = endpoint.max_response_bytes
        self._max_connections = endpoint.max_concurrency
        self.wanted_headers = endpoint.answers.headers if endpoint.answers else frozenset()
        self.known_answers: KnownAnswers = {}
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._slots = 0  # connections open or being opened, plus those promised to who waits
        self._waiting: deque[_Waiting] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._timeouts: set[asyncio.Timeout] = set()
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

    def send(self, request: Request) -> None:
        """POST one message. See `dispatcher.ports.Sender.send`."""
        started = monotonic()
        try:
            data = self._render(request)
        except ValueError:
            request.answered(Answer(0, b"", None, ErrorClass.PROTOCOL, False, 0.0))
            return
        except NotReady:
            request.answered(Answer(0, b"", None, ErrorClass.CONNECT, False, 0.0))
            return
        deadline = started + self._total_timeout
        if not self._idle:
            self._seek(_Waiting(request, data, started, deadline, False))
        elif request.may_start():
            self._idle.pop().begin(request, data, started, deadline, False)
        else:
            request.answered(None)

    def renew(self, endpoint: Endpoint) -> None:
        """Use the secrets of this endpoint. See `dispatcher.ports.Sender.renew`."""
        target = parse_target(endpoint)
        head = "".join(f"{name}: {value}\r\n" for name, value in target.headers)
        path = target.path.replace("%", "%%")
        self._template = (
            f"POST {path}%d HTTP/1.1\r\n{head.replace('%', '%%')}Idempotency-Key: %d\r\nContent-Length: %d\r\n\r\n%b"
        ).encode("ascii")
        self._described = None if endpoint.request is None else DescribedRequests(endpoint)

    def _render(self, request: Request) -> bytes:
        """Return the bytes of a request. Raise ValueError for a phone that is no number."""
        message_id = request.message_id
        if self._described is None:
            body = encode_body(message_id, request.phone, request.text)
            data = self._template % (message_id, message_id, len(body), body)
        else:
            data = self._described.http1(*messages_of(request))
        return data if self._trace_headers is None else _with_headers(data, self._trace_headers())

    def _begin(self, connection: Connection, waiting: _Waiting) -> bool:
        """Write a request that has waited, unless it may not start any more; return whether it was written."""
        request, data, started, deadline, again = waiting
        if request.may_start():
            connection.begin(request, data, started, deadline, again)
            return True
        request.answered(Answer(0, b"", None, _DISCONNECT, True, monotonic() - started) if again else None)
        return False

    async def close(self) -> None:
        """Close every connection; requests under way end with DISCONNECT."""
        self._closed = True
        for waiting in self._waiting:
            waiting.fail(_DISCONNECT)
        self._waiting.clear()
        for connection in tuple(self._connections):
            connection.abort()
        for timeout in self._timeouts:
            if not timeout.expired():
                timeout.reschedule(0.0)
        while unfinished := {*self._dials, *self._closing}:
            await asyncio.wait(unfinished)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        await self._addresses.close()

    # The pool: who gets a connection.

    def _seek(self, waiting: _Waiting) -> None:
        """Open a connection for a request, or let it wait for one; one that has waited before goes first."""
        if self._closed:
            waiting.fail(_DISCONNECT)
        elif self._slots < self._max_connections:
            self._slots += 1
            self._dial_for(waiting)
        else:
            self._waiting.insert(0 if waiting.again else len(self._waiting), waiting)
            self._sweep_by(waiting.deadline)

    def repeat(self, request: Request, data: bytes, started: float) -> None:
        """Send a request on another connection: its own had been closed while it was idle."""
        self._seek(_Waiting(request, data, started, started + self._total_timeout, True))

    def _dial_for(self, waiting: _Waiting) -> None:
        """Open a connection in a slot that is taken already."""
        task = asyncio.get_running_loop().create_task(self._serve(waiting))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _serve(self, waiting: _Waiting) -> None:
        try:
            connection = await self._dial(waiting.deadline)
        except _Failure as failure:
            self._vacate()
            waiting.fail(failure.error)
            return
        except BaseException:
            self._vacate()
            raise
        if not self._begin(connection, waiting):
            connection.used = True
            self.connection_ready(connection, monotonic())

    def _vacate(self) -> None:
        """Give a free slot to who waits longest."""
        if self._waiting:
            self._dial_for(self._waiting.popleft())
        else:
            self._slots -= 1

    def connection_ready(self, connection: Connection, now: float) -> None:
        """Take back a connection that may take another request."""
        if now > connection.retires_at:
            connection.abort()
            return
        connection.deadline = now + IDLE_SECONDS
        while self._waiting:
            if self._begin(connection, self._waiting.popleft()):
                return
        self._idle.append(connection)

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
        overdue = [one for one in self._waiting if one.deadline <= now]
        self._waiting = deque(one for one in self._waiting if one.deadline > now)
        for waiting in overdue:
            waiting.fail(ErrorClass.TIMEOUT)
        if self._connections or self._waiting:
            deadlines = [one.deadline for one in self._connections] + [one.deadline for one in self._waiting]
            self._sweep_by(min(now + self._total_timeout, now + IDLE_SECONDS, *deadlines))

    # Dialing.

    async def _dial(self, deadline: float) -> Connection:
        """Return a new connection within the connect timeout and the deadline. Raise _Failure."""
        if self._closed:
            raise _Failure(_DISCONNECT)
        now = monotonic()
        limit = min(deadline, now + self._connect_timeout)
        try:
            async with asyncio.timeout(limit - now) as timeout:
                self._timeouts.add(timeout)
                try:
                    connection = await self._open(await self._reach(limit))
                finally:
                    self._timeouts.discard(timeout)
        except TimeoutError:
            if self._closed:
                raise _Failure(_DISCONNECT) from None
            raise _Failure(ErrorClass.TIMEOUT if limit == deadline else ErrorClass.CONNECT) from None
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
