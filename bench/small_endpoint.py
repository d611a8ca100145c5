"""A small, fast endpoint that remembers every message: `python -m bench.small_endpoint`.

Prints its URL, accepts every POST, and answers GET /requests with a line for each that it
accepted: the path, a blank, and the body. `--delay-ms` is how long each answer takes; with
`--busy` every message is answered 429 with so many seconds of Retry-After. It ends with the
process that started it, or by SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import signal
import sys
from collections import deque
from typing import cast

import httptools

ACCEPTED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n" + b'{"code":0,"message":"OK"}'
)
_BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %d\r\nContent-Length: 0\r\n\r\n"
_REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
_PDEATHSIG = 1


class Ledger:
    """What has been accepted, and the answers that are not due yet."""

    def __init__(self, delay: float, busy: int) -> None:
        self._answer = _BUSY % busy if busy else ACCEPTED
        self.requests: list[bytes] = []
        self._delay = delay
        self._due: deque[tuple[float, asyncio.Transport]] = deque()
        self._loop = asyncio.get_running_loop()

    def accept(self, request: bytes, transport: asyncio.Transport) -> None:
        """Remember a request and answer it, at once or after the delay."""
        self.requests.append(request)
        if not self._delay:
            transport.write(self._answer)
            return
        if not self._due:
            self._loop.call_later(self._delay, self._answer_due)
        self._due.append((self._loop.time() + self._delay, transport))

    def _answer_due(self) -> None:
        # One timer for all: they are due in the order in which they came.
        now = self._loop.time()
        while self._due and self._due[0][0] <= now:
            self._due.popleft()[1].write(self._answer)
        if self._due:
            self._loop.call_later(max(self._due[0][0] - now, 0.001), self._answer_due)


class Connection(asyncio.Protocol):
    """Answers the requests of one connection."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)  # no subclass of it in uvloop

    def data_received(self, data: bytes) -> None:
        """Feed the parser; close a connection that does not speak HTTP."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.abort()

    # Called by httptools.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        """Take in the request's target, maybe a piece of it."""
        self._url += url

    def on_body(self, data: bytes) -> None:
        """Take in the body, maybe a piece of it."""
        self._body += data

    def on_message_complete(self) -> None:
        """Answer a complete request."""
        last = self._url.rpartition(b"/")[2]
        if last.isdigit():
            self._ledger.accept(b"/%b %b\n" % (last, self._body), self._transport)
        elif last == b"requests":
            body = b"".join(self._ledger.requests)
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        else:
            self._transport.write(_REFUSED)


async def serve(delay: float, busy: int) -> None:
    """Serve on a free port until SIGTERM. `delay` and `busy` are in seconds."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    ledger = Ledger(delay, busy)
    server = await loop.create_server(lambda: Connection(ledger), "127.0.0.1", 0, backlog=8192)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    async with server:
        await ended.wait()


def main() -> None:
    """Run the endpoint with the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.small_endpoint", description=__doc__)
    parser.add_argument("--delay-ms", type=int, default=0, help="how long an answer takes (0)")
    parser.add_argument("--busy", type=int, default=0, help="seconds of Retry-After of a 429 to all (0)")
    options = parser.parse_args()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(options.delay_ms / 1000, options.busy))
    else:
        uvloop.run(serve(options.delay_ms / 1000, options.busy))


if __name__ == "__main__":
    main()
