"""The gRPC API: messages in, domain records through, status codes out.

Only this package touches protobuf. Servicers are thin; they raise the domain's refusals, and
one interceptor turns these into status codes.
"""

from server.api.interceptors.limits import CallLimits
from server.api.server import CannotListen, RpcServer, RpcSettings, build_server

__all__ = ["CallLimits", "CannotListen", "RpcServer", "RpcSettings", "build_server"]
