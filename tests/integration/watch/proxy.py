"""A way to a server that can go dead: connections stay open and nothing comes through any more."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class FreezingProxy:
    """Passes bytes on, in both directions, until it is frozen."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = "127.0.0.1:{1}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all connections."""
        self.freeze()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def freeze(self) -> None:
        """Let nothing through from now on, and close nothing."""
        for pump in self._pumps:
            pump.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, to_beyond = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, to_beyond]
        self._pumps |= {asyncio.create_task(_pump(reader, to_beyond)), asyncio.create_task(_pump(beyond, writer))}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
