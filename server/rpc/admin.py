"""Serves AdminService out of its parts, each in a module of its own."""

from __future__ import annotations

from mailing.v1 import admin_service_pb2 as pb
from mailing.v1.admin_service_pb2_grpc import AdminServiceServicer
from server.domain.errors import NotServedYet
from server.rpc.dispatch import DispatchMethods
from server.rpc.handlers import Context
from server.rpc.log import LogMethods
from server.store.dispatch import DispatchStore
from server.streams import AdminStreams


class AdminService(DispatchMethods, LogMethods, AdminServiceServicer):
    """What operators see and steer."""

    def __init__(self, dispatch: DispatchStore, streams: AdminStreams) -> None:
        DispatchMethods.__init__(self, dispatch, streams)
        LogMethods.__init__(self, streams)

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Context) -> pb.ListEndpointsResponse:
        """Not served yet."""
        raise NotServedYet("ListEndpoints")

    async def ProbeEndpoint(self, request: pb.ProbeEndpointRequest, context: Context) -> pb.ProbeEndpointResponse:
        """Not served yet."""
        raise NotServedYet("ProbeEndpoint")
