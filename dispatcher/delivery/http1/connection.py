"""One keep-alive connection: a request at a time, from its bytes to its Answer.

A connection belongs to an `Owner` (the sender), which hears when the connection is ready for
the next request, when it is gone, and when a request must be repeated on another one. It keeps
no time: the owner sweeps over `deadline`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol, cast

from dispatcher.delivery.http1.response import ResponseReader
from dispatcher.model.endpoints import Answer
from dispatcher.model.states import ErrorClass
from dispatcher.ports import Request

NEVER = float("inf")

_NONE = ErrorClass.NONE  # looked at for each message, and members of an enum take long to look up

_KNOWN_BYTES = 1024
_KNOWN_COUNT = 64

KnownAnswers = dict[bytes, tuple[int, bytes, str | None, Mapping[str, str] | None]]
"""What certain bytes mean when they are all that answers a request.

Endpoints give most messages the same answer, byte for byte. What such bytes parse to never
changes, so an answer that came whole, in one piece, and left the connection usable is looked
up here before it is parsed again.
"""


class Owner(Protocol):
    """Who owns a connection."""

    known_answers: KnownAnswers
    wanted_headers: frozenset[str]

    def connection_ready(self, connection: Connection, now: float) -> None:
        """Take back a connection that may serve another request. `now` is monotonic."""

    def connection_gone(self, connection: Connection) -> None:
        """Forget a connection that must not be used any more. Called once."""

    def repeat(self, request: Request, data: bytes, started: float) -> None:
        """Send a request on another connection: this one had been closed while it was idle."""


class Connection(asyncio.Protocol):
    """A connection to the endpoint.

    `deadline` is when the sweep ends what is going on: the request, or being idle.
    `touched` says whether a byte of the current answer has arrived, `used` whether the
    connection was idle before the current request, `open` whether it can take requests at
    all. `closed` is done when the socket is closed.
    """

    __slots__ = (
        "_data",
        "_known",
        "_may_repeat",
        "_owner",
        "_reader",
        "_request",
        "_started",
        "_transport",
        "closed",
        "deadline",
        "open",
        "retires_at",
        "touched",
        "used",
        "write",
    )

    write: Callable[[bytes], None]
    _transport: asyncio.Transport

    def __init__(self, owner: Owner, max_body: int, retires_at: float) -> None:
        self._owner = owner
        self._known = owner.known_answers
        self._reader = ResponseReader(max_body, owner.wanted_headers)
        self._request: Request | None = None
        self._data = b""
        self._started = 0.0
        self._may_repeat = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deadline = NEVER
        self.retires_at = retires_at
        self.open = False
        self.touched = False
        self.used = False

    def begin(self, request: Request, data: bytes, started: float, deadline: float, again: bool) -> None:
        """Write a request, `again` if it was written on another connection before; it is handed its answer."""
        self._request = request
        self._data = data
        self._started = started
        self._may_repeat = self.used and not again
        self.deadline = deadline
        self.touched = False
        self.write(data)

    def abort(self, error: ErrorClass = ErrorClass.DISCONNECT) -> None:
        """End the connection at once, and with `error` the request it carries."""
        if self.open:
            self.open = False
            self.deadline = NEVER
            self._transport.abort()
            self._owner.connection_gone(self)
        self._resolve(error)

    def _resolve(self, error: ErrorClass) -> None:
        request, self._request = self._request, None
        if request is None:
            return
        if error is ErrorClass.DISCONNECT and not self.touched and self._may_repeat and not request.at_most_once:
            self._owner.repeat(request, self._data, self._started)  # which says nothing about this request
            return
        reader = self._reader
        duration = monotonic() - self._started
        if self.touched:
            answer = Answer(reader.status, reader.body, reader.retry_after, error, True, duration, reader.headers)
        else:
            answer = Answer(0, b"", None, error, True, duration)
        request.answered(answer)

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the connection stands, TLS included."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Take in a piece of an answer; usually it is all of it."""
        request = self._request
        if request is None:
            self.abort()  # nobody asked
        elif self.touched or (known := self._known.get(data)) is None:
            self._read(data)
        else:
            self._request = None
            self.used = True
            now = monotonic()
            status, body, retry_after, headers = known
            request.answered(Answer(status, body, retry_after, _NONE, True, now - self._started, headers))
            self._owner.connection_ready(self, now)

    def _read(self, data: bytes) -> None:
        reader = self._reader
        whole = not self.touched
        if whole:
            self.touched = True
            reader.begin()
        error = reader.feed(data)
        if error is not ErrorClass.NONE:
            self.abort(error)
        elif reader.complete:
            if reader.reusable and whole and len(data) <= _KNOWN_BYTES:
                self._remember(data)
            self._answered()

    def _remember(self, data: bytes) -> None:
        if len(self._known) >= _KNOWN_COUNT:
            self._known.clear()
        reader = self._reader
        self._known[data] = (reader.status, reader.body, reader.retry_after, reader.headers)

    def _answered(self) -> None:
        reusable = self._reader.reusable and self._request is not None
        self._resolve(ErrorClass.NONE)
        self.used = True
        if reusable:
            self._owner.connection_ready(self, monotonic())
        else:
            self.abort()

    def eof_received(self) -> None:
        """Note that the endpoint sends no more: the end of an answer, or of the connection."""
        if self._request is not None and self.touched and self._reader.finish():
            self._resolve(ErrorClass.NONE)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the transport is closed."""
        if exc is None:
            self.eof_received()
        else:
            self.abort()
        if not self.closed.done():
            self.closed.set_result(None)
