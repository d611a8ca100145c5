"""Serves AdminService: hands each call to the module that answers it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from mailing.v1 import admin_service_pb2 as pb
from mailing.v1.admin_service_pb2_grpc import AdminServiceServicer
from server.api.interceptors.handlers import Context
from server.api.services.admin_dispatch import DispatchCalls
from server.api.services.admin_endpoints import EndpointCalls
from server.api.services.admin_log import LogCalls


class AdminService(AdminServiceServicer):
    """What operators see and steer."""

    def __init__(self, dispatch: DispatchCalls, endpoints: EndpointCalls, log: LogCalls) -> None:
        self._dispatch = dispatch
        self._endpoints = endpoints
        self._log = log

    async def GetDispatch(self, request: pb.GetDispatchRequest, context: Context) -> pb.GetDispatchResponse:
        """Return every replica and the settings."""
        return await self._dispatch.get(request)

    async def WatchDispatch(
        self, request: pb.WatchDispatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchDispatchResponse]:
        """Stream the same."""
        async with aclosing(self._dispatch.watch(request)) as responses:
            async for response in responses:
                yield response

    async def UpdateDispatchSettings(
        self, request: pb.UpdateDispatchSettingsRequest, context: Context
    ) -> pb.UpdateDispatchSettingsResponse:
        """Change the settings named in the mask."""
        return await self._dispatch.update(request)

    async def PauseDispatch(self, request: pb.PauseDispatchRequest, context: Context) -> pb.PauseDispatchResponse:
        """Stop all sending."""
        return await self._dispatch.pause()

    async def ResumeDispatch(self, request: pb.ResumeDispatchRequest, context: Context) -> pb.ResumeDispatchResponse:
        """Let sending go on."""
        return await self._dispatch.resume()

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Context) -> pb.ListEndpointsResponse:
        """List the configured endpoints and how they are doing."""
        return await self._endpoints.list(request)

    async def ProbeEndpoint(self, request: pb.ProbeEndpointRequest, context: Context) -> pb.ProbeEndpointResponse:
        """Make one request to an endpoint and tell how it ended."""
        return await self._endpoints.probe(request)

    async def WatchLog(self, request: pb.WatchLogRequest, context: Context) -> AsyncIterator[pb.WatchLogResponse]:
        """Stream the log until the caller has enough."""
        begun = False
        async with aclosing(self._log.watch(request)) as responses:
            async for response in responses:
                if not begun:
                    # Apart from the first page, which may find no room: without this gRPC could not even say so.
                    await context.send_initial_metadata(())
                    begun = True
                try:
                    yield response
                except Exception as error:  # whoever writes the responses throws it in
                    await responses.athrow(error)
