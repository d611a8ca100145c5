"""A thousand streams are told something in a loop whose turns are slow; prints how many turns it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from server.rpc.wakeups import unblock_wakeups

STREAMS = 1000
TURN_SECONDS = 0.002


class Turns:
    """Counts the turns of the loop, and makes each of them slow."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> None:
        """Takes a turn."""
        self.count += 1
        time.sleep(TURN_SECONDS)
        asyncio.get_running_loop().call_soon(self.next)


async def main() -> None:
    """Serves streams, opens them, tells all of them something, and counts until all have heard it."""
    unblock_wakeups()
    server, told = grpc.aio.server(), asyncio.Event()

    async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"begun"
        await told.wait()
        yield b"told"

    handlers: dict[str, Any] = {"Call": grpc.unary_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("slow", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        stream: Any = channel.unary_stream("/slow/Call")
        calls = [stream(b"") for _ in range(STREAMS)]
        await asyncio.gather(*(call.read() for call in calls))
        turns = Turns()
        turns.next()
        told.set()
        await asyncio.gather(*(call.read() for call in calls))
        print(turns.count, flush=True)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
