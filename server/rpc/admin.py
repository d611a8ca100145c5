"""Serves AdminService: hands each call to the module that answers it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mailing.v1 import admin_service_pb2 as pb
from mailing.v1.admin_service_pb2_grpc import AdminServiceServicer
from server.domain.errors import NotServedYet
from server.rpc.endpoints import EndpointCalls
from server.rpc.handlers import Context


class AdminService(AdminServiceServicer):
    """What operators see and steer."""

    def __init__(self, endpoints: EndpointCalls) -> None:
        self._endpoints = endpoints

    async def GetDispatch(self, request: pb.GetDispatchRequest, context: Context) -> pb.GetDispatchResponse:
        """Not served yet."""
        raise NotServedYet("GetDispatch")

    async def WatchDispatch(
        self, request: pb.WatchDispatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchDispatchResponse]:
        """Not served yet."""
        raise NotServedYet("WatchDispatch")
        yield

    async def UpdateDispatchSettings(
        self, request: pb.UpdateDispatchSettingsRequest, context: Context
    ) -> pb.UpdateDispatchSettingsResponse:
        """Not served yet."""
        raise NotServedYet("UpdateDispatchSettings")

    async def PauseDispatch(self, request: pb.PauseDispatchRequest, context: Context) -> pb.PauseDispatchResponse:
        """Not served yet."""
        raise NotServedYet("PauseDispatch")

    async def ResumeDispatch(self, request: pb.ResumeDispatchRequest, context: Context) -> pb.ResumeDispatchResponse:
        """Not served yet."""
        raise NotServedYet("ResumeDispatch")

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Context) -> pb.ListEndpointsResponse:
        """Lists the configured endpoints and how they are doing."""
        return await self._endpoints.list(request)

    async def ProbeEndpoint(self, request: pb.ProbeEndpointRequest, context: Context) -> pb.ProbeEndpointResponse:
        """Makes one request to an endpoint and tells how it ended."""
        return await self._endpoints.probe(request)

    async def WatchLog(self, request: pb.WatchLogRequest, context: Context) -> AsyncIterator[pb.WatchLogResponse]:
        """Not served yet."""
        raise NotServedYet("WatchLog")
        yield
