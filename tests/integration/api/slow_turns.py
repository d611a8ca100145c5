"""A thousand streams are told something in a loop whose turns are slow; prints how many turns it took.

Behind it stands how gRPC's thread is scheduled.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from server.api.grpc_poller import start_poller

STREAMS = 1000
TURN_SECONDS = 0.002


class Turns:
    """Counts the turns of the loop, and makes each of them slow."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> None:
        """Take a turn."""
        self.count += 1
        time.sleep(TURN_SECONDS)
        asyncio.get_running_loop().call_soon(self.next)


def policies() -> list[int]:
    """Return how the threads beside this one are scheduled."""
    others = (thread.native_id for thread in threading.enumerate() if thread is not threading.main_thread())
    return [os.sched_getscheduler(number) for number in others if number is not None]


async def main() -> None:
    """Serve streams, open them, tell all of them something, and count until all have heard it."""
    start_poller()
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
        print(turns.count, *policies(), flush=True)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
