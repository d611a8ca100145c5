"""grpc.channelz.v1 on a port of its own: every channel, socket and call count of this process.

For debugging connections. It shows peers, so it is off by default, and never on the API's port.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_channelz.v1 import channelz

from server.api.transport import CannotListen, check_free

_log = logging.getLogger(__name__)


@asynccontextmanager
async def serving_channelz(address: str) -> AsyncIterator[None]:
    """Serve on `address` (`host:port`, or `off` for nowhere) inside the block. Raise CannotListen."""
    if address == "off":
        yield
        return
    check_free(address)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    channelz.add_channelz_servicer(server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise CannotListen(address, str(error)) from error
    await server.start()
    _log.info("channelz is on port %d", port)
    try:
        yield
    finally:
        await server.stop(0)
