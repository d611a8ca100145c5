"""A small endpoint that remembers when each mailing's first message came: `python -m bench.stamping_endpoint`.

Prints its URL, accepts every message, and answers GET /stamps with a JSON object of mailing
id to the moment of its first request, in seconds of the system's clock. The moment is taken
before anything is parsed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ACCEPTED = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"code":0}'


class _Connection(asyncio.Protocol):
    """Reads requests off one connection and stamps them."""

    def __init__(self, stamps: dict[int, float]) -> None:
        self._stamps = stamps
        self._received = b""
        self._began = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if not self._received:
            self._began = time.time()
        self._received += data
        while (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            path = self._received.split(b" ", 2)[1].decode()
            self._received = self._received[end:]
            self._answer(path)

    def _answer(self, path: str) -> None:
        assert self._transport is not None
        if path == "/stamps":
            body = json.dumps(self._stamps).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        self._stamps.setdefault(int(path.rpartition("/")[2]) >> 32, self._began)
        self._transport.write(_ACCEPTED)


async def _serve() -> None:
    stamps: dict[int, float] = {}
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(stamps), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    await server.serve_forever()


class StampingEndpoint:
    """A running stamping endpoint, in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def stamps(self) -> dict[int, float]:
        """Return when each mailing's first message came, by mailing id."""
        with urllib.request.urlopen(f"{self.url}stamps", timeout=30) as answer:
            return {int(mailing_id): at for mailing_id, at in json.load(answer).items()}

    async def stamp(self, mailing_id: int, seconds: float = 60.0) -> float:
        """Return when a mailing's first message came; raise TimeoutError when none does."""
        async with asyncio.timeout(seconds):
            while True:
                if at := (await asyncio.to_thread(self.stamps)).get(mailing_id):
                    return at
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def stamping_endpoint() -> AsyncIterator[StampingEndpoint]:
    """Run a stamping endpoint inside the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.stamping_endpoint", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield StampingEndpoint((await process.stdout.readline()).decode().strip())
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
