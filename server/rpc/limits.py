"""How many streams a principal may have at once, so that nobody takes the service from the others.

Without authentication a principal is the host that calls, whatever the connection. Only the
streams of this API count: health and reflection do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from server.domain.errors import LimitReached
from server.rpc.handlers import Context, Continuation, Handler, around

_COUNTED = "/mailing.v1."


class StreamLimitInterceptor(grpc.aio.ServerInterceptor):
    """Refuses streams above `most` per principal with LimitReached, inside of what turns that into a status."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wraps handlers that stream their response."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler.response_streaming or not handler_call_details.method.startswith(_COUNTED):
            return handler
        return around(handler, self._counted)

    @asynccontextmanager
    async def _counted(self, context: Context) -> AsyncIterator[None]:
        principal = principal_of(context.peer())
        if self._open[principal] >= self._most:
            raise LimitReached("streams", self._most)
        self._open[principal] += 1
        try:
            yield
        finally:
            self._open[principal] -= 1
            if not self._open[principal]:
                del self._open[principal]


def principal_of(peer: str) -> str:
    """Returns the host of a peer as gRPC writes it, such as `ipv4:10.0.0.1:50123` or `unix:`."""
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer
