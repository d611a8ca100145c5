"""The httpx sender: for endpoints behind a proxy or on HTTP/2.

It keeps the promises of the fast sender (same classes, same bounds, same suite) and takes
proxies from the environment. It is far slower: httpcore looks at all its connections for
every request, so this one keeps few, and what exceeds them waits in line before it.

It can see a little less: a connection that ends inside the head counts as ended before it,
a proxy that refuses counts as CONNECT, and of two answers sent as one to a single request
over HTTP/1.1 it takes the second for the next request's. A request that may not start any
more costs an HTTP/1.1 connection, which httpcore closes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Any

import httpx

from dispatcher.delivery.awaiting import TaskSender
from dispatcher.delivery.batching import messages_of
from dispatcher.delivery.described import DescribedRequests, NotReady
from dispatcher.delivery.http1.tls import tls_context
from dispatcher.delivery.protocol import OUT_OF_FILES, encode_body, parse_target
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass
from dispatcher.ports import MayStart, Request
from dispatcher.tracing import TraceHeaders

MAX_CONNECTIONS = 64
"""The most connections, and the most requests under way. More make httpcore slower, not faster."""

_ENDED_EARLY = ("disconnected", "closed connection", "ConnectionTerminated", "StreamReset")
_HEAD_TOO_LARGE = "Receive buffer too long"


class _NotStarted(Exception):
    """Raised from within httpcore, before it writes a request that may not start any more."""


class _Exchange:
    """One request: how far it got, as httpcore tells it, and what has arrived."""

    __slots__ = (
        "_may_start",
        "_stream",
        "body",
        "connected",
        "forbidden",
        "handshaking",
        "headers",
        "sent",
        "status",
        "wanted",
    )

    def __init__(self, may_start: MayStart, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self._may_start = may_start
        self._stream: Any = None  # of httpcore
        self.forbidden = False
        self.connected = False  # by this request; otherwise the connection is a reused one
        self.handshaking = False
        self.sent = False
        self.status = 0
        self.headers = httpx.Headers()
        self.body = b""

    async def trace(self, event: str, about: Mapping[str, Any]) -> None:
        """Take an event of httpcore's trace extension in."""
        if event.endswith("connect_tcp.started"):
            self.connected = True
        elif event.endswith("connect_tcp.complete"):
            self._stream = about["return_value"]
        elif event.endswith("start_tls.started"):
            self.handshaking = True
        elif event.endswith("start_tls.failed") and self._stream is not None:
            await self._stream.aclose()  # httpcore leaves it open when the handshake is cancelled
        elif event.endswith("start_tls.complete"):
            self.handshaking = False
        elif event.endswith("send_request_headers.started") and about["request"].method != b"CONNECT":
            # What asks a proxy for a tunnel is not seen by the endpoint.
            if not self._may_start():
                self.forbidden = True
                raise _NotStarted
            self.sent = True

    def answer(self, error: ErrorClass, started: float) -> Answer:
        """Return what it came to."""
        retry_after = self.headers.get("retry-after")
        headers = {name: self.headers[name] for name in self.wanted if name in self.headers}
        return Answer(self.status, self.body, retry_after, error, self.sent, monotonic() - started, headers)


class HttpxSender(TaskSender):
    """Sends messages to one endpoint by httpx. Implements `dispatcher.ports.Sender`.

    To be used from one event loop; `trace_headers` gives each request more headers. Raises
    ValueError for an endpoint whose URL, token or CA file is unusable.
    """

    def __init__(self, endpoint: Endpoint, trace_headers: TraceHeaders | None = None) -> None:
        super().__init__()
        self._trace_headers = trace_headers
        target = parse_target(endpoint)
        self._described = None if endpoint.request is None else DescribedRequests(endpoint)
        self._wanted = endpoint.answers.headers if endpoint.answers else frozenset()
        connections = min(endpoint.max_concurrency, MAX_CONNECTIONS)
        self._url = endpoint.url if target.path != "/" else endpoint.url.rstrip("/") + "/"
        self._total_timeout = endpoint.total_timeout
        self._max_body = endpoint.max_response_bytes
        self._turns = asyncio.Semaphore(connections)
        self._timeouts: set[asyncio.Timeout] = set()
        self._closed = False
        self._client = httpx.AsyncClient(
            headers=target.headers if self._described is None else (),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # it would keep and send back every one
            verify=tls_context(endpoint) if target.secure else True,
            http2=target.secure,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=4),
            timeout=httpx.Timeout(None, connect=endpoint.connect_timeout),
            follow_redirects=False,
        )

    def renew(self, endpoint: Endpoint) -> None:
        """Use the secrets of this endpoint. See `dispatcher.ports.Sender.renew`."""
        self._described = None if endpoint.request is None else DescribedRequests(endpoint)
        if self._described is None:
            self._client.headers = httpx.Headers(parse_target(endpoint).headers)

    async def post(self, request: Request) -> Answer | None:
        """POST the message of a request; it waits for its turn while as many are under way as httpcore bears."""
        started = monotonic()
        exchange = _Exchange(request.may_start, self._wanted)
        if self._closed:
            return exchange.answer(ErrorClass.DISCONNECT, started)
        try:
            written = self._request(request)
        except ValueError:
            return exchange.answer(ErrorClass.PROTOCOL, started)
        except NotReady:
            return exchange.answer(ErrorClass.CONNECT, started)
        try:
            async with self._limited(), self._turns:
                error = await self._exchange(exchange, written)
                once = exchange.connected or exchange.status or request.at_most_once
                if error is ErrorClass.DISCONNECT and not once:
                    exchange = _Exchange(request.may_start, self._wanted)
                    exchange.sent = True  # the first one was
                    error = await self._exchange(exchange, written)
        except TimeoutError:
            error = ErrorClass.DISCONNECT if self._closed else ErrorClass.TIMEOUT
        if exchange.forbidden:
            return exchange.answer(ErrorClass.DISCONNECT, started) if exchange.sent else None
        return exchange.answer(error, started)

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        """Raise TimeoutError in the block after the total timeout, or when the sender is closed."""
        async with asyncio.timeout(self._total_timeout) as timeout:
            self._timeouts.add(timeout)
            try:
                yield
            finally:
                self._timeouts.discard(timeout)

    async def close(self) -> None:
        """Close every connection; requests under way end with DISCONNECT."""
        self._closed = True
        for timeout in self._timeouts:
            if not timeout.expired():
                timeout.reschedule(0.0)
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._client.aclose()

    def _request(self, request: Request) -> httpx.Request:
        """Return what is written for one message. Raise ValueError for a phone that is none."""
        message_id, phone, text = request.message_id, request.phone, request.text
        if self._described is None:
            body, headers = encode_body(message_id, phone, text), [("Idempotency-Key", b"%d" % message_id)]
            method, url = "POST", httpx.URL(f"{self._url}{message_id}")
        else:
            target, headers, body = self._described.parts(*messages_of(request))
            method, url = self._described.method, httpx.URL(self._url).copy_with(raw_path=target)
        if self._trace_headers is not None:
            headers = [*headers, *((name, value.encode("ascii")) for name, value in self._trace_headers().items())]
        wired = [(name.encode("ascii"), value) for name, value in headers]
        return self._client.build_request(method, url, content=body, headers=wired)

    async def _exchange(self, exchange: _Exchange, request: httpx.Request) -> ErrorClass:
        try:
            return await self._read(exchange, request)
        except Exception as error:  # httpcore and h2 let more out than they document, and a send never raises
            return _classify(error, exchange)

    async def _read(self, exchange: _Exchange, request: httpx.Request) -> ErrorClass:
        request.extensions = {**request.extensions, "trace": exchange.trace}
        response = await self._client.send(request, stream=True)
        async with aclosing(response):
            exchange.status, exchange.headers = response.status_code, response.headers
            if int(response.headers.get("content-length", 0)) > self._max_body:
                return ErrorClass.TOO_LARGE
            if response.status_code == 101:  # nobody asked for another protocol
                return ErrorClass.PROTOCOL
            async for piece in response.aiter_raw():  # raw: nothing is decompressed
                if len(exchange.body) + len(piece) > self._max_body:
                    return ErrorClass.TOO_LARGE
                exchange.body += piece
        return ErrorClass.NONE


def _classify(error: Exception, exchange: _Exchange) -> ErrorClass:
    """Return the class of what httpx raised."""
    match error:
        case httpx.ConnectTimeout():
            return ErrorClass.CONNECT
        case httpx.ConnectError() if any(getattr(c, "errno", 0) in OUT_OF_FILES for c in _causes(error)):
            return ErrorClass.LOCAL
        case httpx.ConnectError() if exchange.handshaking:
            return ErrorClass.TLS
        case httpx.ConnectError() if any(isinstance(cause, socket.gaierror) for cause in _causes(error)):
            return ErrorClass.RESOLVE
        case httpx.ConnectError() | httpx.ProxyError():
            return ErrorClass.CONNECT
        case httpx.NetworkError():
            return ErrorClass.DISCONNECT
        case httpx.RemoteProtocolError() if any(words in str(error) for words in _ENDED_EARLY):
            return ErrorClass.DISCONNECT
        case httpx.RemoteProtocolError() if _HEAD_TOO_LARGE in str(error):
            return ErrorClass.TOO_LARGE
        case _:
            return ErrorClass.PROTOCOL


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
