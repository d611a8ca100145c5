"""A very small HTTP server for operators: a few fixed paths, read only.

One request per connection. Whoever asks is not trusted: sizes, times and the number of
connections are bounded, and nothing of a request is told to anybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

log = logging.getLogger(__name__)

LARGEST_HEAD = 8192
"""Bytes of a request's line and headers."""

PATIENCE = 5.0
"""Seconds in which a request must have come, and in which its answer must have been taken."""

MOST_CONNECTIONS = 32
"""Connections at once; more are closed as they come."""

PLAIN = "text/plain; charset=utf-8"


class Reply(NamedTuple):
    """What a path answers."""

    status: HTTPStatus
    body: bytes
    content_type: str = PLAIN


Answer = Callable[[Mapping[str, str]], Awaitable[Reply]]
"""Makes the reply from the request's headers, whose names are in lower case."""


class AdminHttp:
    """Serves `paths`, from `start` to `stop`."""

    def __init__(self, paths: Mapping[str, Answer]) -> None:
        self._paths = paths
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port, which for 0 is any free one. Raise OSError."""
        self._server = await asyncio.start_server(self._serve, host.strip("[]"), port, limit=LARGEST_HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more and cuts off whoever is connected."""
        if self._server is not None:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= MOST_CONNECTIONS:
                await self._exchange(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever asked is gone, or too slow
        finally:
            self._open.discard(task)
            # Whoever has not taken the answer by now is not waited for.
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            method, reply = "GET", _sentence(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            method, reply = await self._answer(head.decode("latin-1"))
        writer.write(_encoded(reply, with_body=method != "HEAD"))
        async with asyncio.timeout(PATIENCE):
            await writer.drain()
            writer.write_eof()
            # Closing with bytes unread would reset the connection under the answer.
            await reader.read(LARGEST_HEAD)

    async def _answer(self, head: str) -> tuple[str, Reply]:
        request, *lines = head.split("\r\n")
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "GET", _sentence(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        if (answer := self._paths.get(target.partition("?")[0])) is None:
            return method, _sentence(HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return method, _sentence(HTTPStatus.METHOD_NOT_ALLOWED)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        try:
            return method, await answer(headers)
        except Exception:
            log.exception("an answer on the admin port failed")
            return method, _sentence(HTTPStatus.INTERNAL_SERVER_ERROR)


def _sentence(status: HTTPStatus) -> Reply:
    return Reply(status, f"{status.phrase}\n".encode())


def _encoded(reply: Reply, with_body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode() + (reply.body if with_body else b"")
