"""An endpoint that says on a raw socket exactly what a script tells it to, and keeps count.

It knows no HTTP but how to find the end of a request: whatever an endpoint may do wrong, it
can do. It never fails by itself; what it sees of its clients is there to be asserted on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.conformance.listener import Listener


class Request(NamedTuple):
    """A request as it came, and the number of the connection it came on."""

    connection: int
    line: str
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection of a client, seen from the endpoint."""

    def __init__(self, endpoint: ScriptedEndpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._endpoint = endpoint
        self._reader = reader
        self._writer = writer
        self.number = endpoint.accepted
        """The how manieth connection it is, from 1."""

    async def request(self) -> Request:
        """Return the next request; raise EOFError when the client is gone instead."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head[:-4].split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(self.number, line, headers, body)
        await self._endpoint.saw(request)
        return request

    async def say(self, data: bytes) -> None:
        """Write, as fast as the client reads."""
        self._writer.write(data)
        await self._writer.drain()
        self._endpoint.pushed += len(data)

    async def read(self) -> bytes:
        """Return what comes next, nothing at the end."""
        return await self._reader.read(65536)

    async def hang(self) -> None:
        """Say nothing until the client is gone."""
        while await self.read():
            pass

    def close(self) -> None:
        """End the connection in an orderly way, after what was said."""
        self._writer.close()

    def reset(self) -> None:
        """End the connection with a RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    @property
    def closing(self) -> bool:
        return self._writer.is_closing()


Script = Callable[[Wire], Awaitable[None]]


class ScriptedEndpoint(Listener):
    """A listening socket on 127.0.0.1 whose connections each run `script`. Use it in an `async with`."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.script = script
        self.requests: list[Request] = []
        self.accepted = 0
        self.open = 0
        self.most_open = 0
        self.pushed = 0
        """How many bytes clients have taken, those in the buffers of the sockets included."""
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        """Its URL, to which a message id may be appended."""
        return f"https://localhost:{self.port}/send/" if self._tls else f"http://127.0.0.1:{self.port}/send/"

    async def saw(self, request: Request) -> None:
        """Note a request."""
        self.requests.append(request)
        await self._note()

    async def until(self, holds: Callable[[], bool], within: float = 10.0) -> None:
        """Return as soon as it holds; fail after `within` seconds."""
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(holds)

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the script, and keep count."""
        self.accepted += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._note()
            await self.script(Wire(self, reader, writer))
        finally:
            writer.transport.abort()
            self.open -= 1
            with contextlib.suppress(asyncio.CancelledError):
                await self._note()


def answers(*steps: bytes | float | str) -> Script:
    """Return a script that reads one request after the other and play the steps for each.

    Bytes are written, numbers are pauses in seconds, words are what happens to the
    connection: "hang", "close", "reset".
    """

    async def script(wire: Wire) -> None:
        while not wire.closing:
            await wire.request()
            await play(wire, *steps)

    return script


def goes_stale(times: int = 1, before: bytes = b"") -> ScriptedEndpoint:
    """Return an endpoint whose first connections end at their second request, after saying `before`."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(http())
        await wire.request()
        if wire.number <= times:
            await wire.say(before)
            wire.close()
        else:
            await wire.say(http())

    return ScriptedEndpoint(script)


async def play(wire: Wire, *steps: bytes | float | str) -> None:
    """Play steps, see `answers`."""
    for step in steps:
        if isinstance(step, bytes):
            await wire.say(step)
        elif isinstance(step, str):
            await _end(wire, step)
        else:
            await asyncio.sleep(step)


async def _end(wire: Wire, how: str) -> None:
    if how == "hang":
        await wire.hang()
    elif how == "reset":
        # What was said before is to arrive before the RST, which would overtake it.
        await asyncio.sleep(0.02)
        wire.reset()
    else:
        assert how == "close"
        wire.close()


def http(body: bytes = b'{"code":0,"message":"OK"}', status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole answer, framed by its length."""
    return head(status, f"Content-Length: {len(body)}", *headers) + body


def head(status: str, *headers: str) -> bytes:
    """Return the head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return a chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end
