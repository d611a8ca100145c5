"""Serves AdminService out of its parts, each in a module of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mailing.v1 import admin_service_pb2 as pb
from mailing.v1.admin_service_pb2_grpc import AdminServiceServicer
from server.domain.errors import NotServedYet
from server.rpc.dispatch import DispatchMethods
from server.rpc.handlers import Context


class AdminService(DispatchMethods, AdminServiceServicer):
    """What operators see and steer."""

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Context) -> pb.ListEndpointsResponse:
        """Not served yet."""
        raise NotServedYet("ListEndpoints")

    async def ProbeEndpoint(self, request: pb.ProbeEndpointRequest, context: Context) -> pb.ProbeEndpointResponse:
        """Not served yet."""
        raise NotServedYet("ProbeEndpoint")

    async def WatchLog(self, request: pb.WatchLogRequest, context: Context) -> AsyncIterator[pb.WatchLogResponse]:
        """Not served yet."""
        raise NotServedYet("WatchLog")
        yield pb.WatchLogResponse()
