"""A gateway before an endpoint that holds a handshake up for as long as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from tests.conformance.scripted_endpoint import ScriptedEndpoint


class SlowGateway:
    """Relays connections to `endpoint`, once `opened` is set. Use it in an `async with`.

    With `tunnels` it is a proxy that is to be asked by CONNECT.
    """

    def __init__(self, endpoint: ScriptedEndpoint, tunnels: bool = False) -> None:
        self.opened = asyncio.Event()
        self._endpoint = endpoint
        self._tunnels = tunnels
        self._greeted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The endpoint's URL, by way of the gateway."""
        return self._endpoint.url.replace(str(self._endpoint.port), str(self.port))

    async def greeted(self, within: float = 10.0) -> None:
        """Return when the first bytes of a client have come and are held back: its handshake is under way."""
        async with asyncio.timeout(within):
            await self._greeted.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A stream handler that is cancelled is reported by asyncio.
        with contextlib.suppress(OSError, EOFError, RuntimeError, asyncio.CancelledError):
            await self._relay(reader, writer)
        writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tunnels:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        first = await reader.read(65536)
        self._greeted.set()
        await self.opened.wait()
        onwards, into = await asyncio.open_connection("127.0.0.1", self._endpoint.port)
        try:
            into.write(first)
            await asyncio.gather(_pump(reader, into), _pump(onwards, writer))
        finally:
            into.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
