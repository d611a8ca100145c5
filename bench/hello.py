"""The smallest server of the same framework: its one method answers what it was sent. Prints its port."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import uvloop

SERVICE, METHOD = "bench.Hello", "Say"


async def serve() -> None:
    """Serve on a free port until the process is ended."""

    async def say(request: bytes, context: Any) -> bytes:
        return request

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, Any] = {METHOD: grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
