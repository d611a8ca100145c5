"""A listening socket whose connections are each served by a task that ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Self


class Listener:
    """Listens on a free port of 127.0.0.1 while its block runs. Subclasses `serve` a connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, which is aborted when this returns."""
        raise NotImplementedError

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A stream handler that is cancelled is reported by asyncio. RuntimeError: what uvloop
        # calls writing to a client who is gone.
        try:
            with contextlib.suppress(OSError, EOFError, RuntimeError, asyncio.CancelledError):
                await self.serve(reader, writer)
        finally:
            writer.transport.abort()
