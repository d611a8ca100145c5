"""A gateway before an endpoint that holds a handshake up for as long as a test wants."""

from __future__ import annotations

import asyncio

from tests.conformance.listener import Listener
from tests.conformance.scripted_endpoint import ScriptedEndpoint


class SlowGateway(Listener):
    """Relays connections to `endpoint`, once `opened` is set. Use it in an `async with`.

    With `tunnels` it is a proxy that is to be asked by CONNECT.
    """

    def __init__(self, endpoint: ScriptedEndpoint, tunnels: bool = False) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self._endpoint = endpoint
        self._tunnels = tunnels
        self._greeted = asyncio.Event()

    @property
    def url(self) -> str:
        """The endpoint's URL, by way of the gateway."""
        return self._endpoint.url.replace(str(self._endpoint.port), str(self.port))

    async def greeted(self, within: float = 10.0) -> None:
        """Return when the first bytes of a client have come and are held back: its handshake is under way."""
        async with asyncio.timeout(within):
            await self._greeted.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay a connection once the gateway is opened."""
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
