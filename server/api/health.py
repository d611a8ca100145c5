"""grpc.health.v1.Health: whether the service and its parts are served, for load balancers.

It is open to everybody, so it answers for the services it knows only, and keeps nothing of a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.api.handlers import Context
from server.domain.errors import ServiceUnknown

_STATUSES = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it comes without types
    """One status for all services, whose names are `known`; '' is the server itself."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = frozenset({"", *known})
        self._able = True
        self._stopping = False
        self._changed = asyncio.Event()

    def set(self, able: bool) -> None:
        """Set the status; after `stop` it stays NOT_SERVING."""
        self._able = able and not self._stopping
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Set NOT_SERVING for good."""
        self._stopping = True
        self.set(False)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Return the status of a service."""
        self._require(request.service)
        return self._answer()

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Stream the status of a service whenever it changes."""
        self._require(request.service)
        del request
        last = None
        while True:
            changed = self._changed
            if last is not self._able:
                last = self._able
                yield self._answer()
            await changed.wait()

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:
        """Return the status of every service."""
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._known, self._answer()))

    def _answer(self) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=_STATUSES[self._able])

    def _require(self, service: str) -> None:
        if service not in self._known:
            raise ServiceUnknown
