"""grpc.channelz.v1 on a port of its own: every channel, socket and call count of this process.

For debugging connections. It names peers, so it is off unless set, and never beside the API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_channelz.v1 import channelz

from server.api.server import CannotListen, check_free


@asynccontextmanager
async def serving_channelz(address: str) -> AsyncIterator[int]:
    """Serve on `address` (`host:port`) inside the block; lend the port. Raise CannotListen."""
    check_free(address)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    channelz.add_channelz_servicer(server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise CannotListen(address, str(error)) from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
