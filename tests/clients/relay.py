"""A TCP relay in front of two replicas, which cuts and freezes connections on request."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle

CHUNK = 65536


class _Connection:
    def __init__(self, caller: StreamWriter, backend: StreamWriter) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self._ends = (caller, backend)

    async def pump(self, source: StreamReader, sink: StreamWriter) -> None:
        """Forward what comes from one side, while the connection is not frozen."""
        while data := await source.read(CHUNK):
            await self.flows.wait()
            sink.write(data)
            await sink.drain()

    def cut(self) -> None:
        self.flows.set()
        for end in self._ends:
            end.transport.abort()


class Relay:
    """Forwards each connection to the next of the backends that takes one."""

    def __init__(self, backends: Sequence[int]) -> None:
        self.cuts = 0
        self.reached: set[int] = set()
        self._backends = cycle(backends)
        self._count = len(backends)
        self._connections: set[_Connection] = set()
        self._connected = asyncio.Event()
        self._cutting: set[asyncio.Task[None]] = set()
        self._relaying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Lend the relay's address."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self._stop_cutting()
            self._cut_all()
            await asyncio.gather(*self._relaying, *self._cutting, return_exceptions=True)

    def cut(self, times: int, every: float) -> None:
        """Break all connections so many times, at least `every` seconds apart; return before the first time."""
        task = asyncio.create_task(self._cut_repeatedly(times, every))
        self._cutting.add(task)
        task.add_done_callback(self._cutting.discard)

    def freeze(self) -> None:
        """Forward nothing more on the connections of this moment."""
        for connection in self._connections:
            connection.flows.clear()

    def told(self) -> dict[str, bool]:
        """Return what has happened since the last time, and cut no more."""
        self._stop_cutting()
        found = {"eightCuts": self.cuts >= 8, "bothReplicas": len(self.reached) == self._count}
        self.cuts, self.reached = 0, set()
        return found

    async def _cut_repeatedly(self, times: int, every: float) -> None:
        for _ in range(times):
            await asyncio.sleep(every)
            await self._connected.wait()
            self._cut_all()
            self.cuts += 1

    def _stop_cutting(self) -> None:
        for task in self._cutting:
            task.cancel()

    def _cut_all(self) -> None:
        self._connected.clear()
        for connection in list(self._connections):
            connection.cut()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._relaying.add(task)
        task.add_done_callback(self._relaying.discard)

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            behind, backend = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, backend)
        self._connections.add(connection)
        self._connected.set()
        ways = ((reader, backend), (behind, writer))
        pumps = [asyncio.create_task(connection.pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            connection.cut()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        for _ in range(self._count):
            port = next(self._backends)
            try:
                streams = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            self.reached.add(port)
            return streams
        raise ConnectionRefusedError
