"""The gRPC API: messages in, domain records through, status codes out.

Only this package touches protobuf. A call passes `interceptors`, is served by one of `services`,
and is decoded and encoded by `encoding`. Servicers are thin: rules live in the domain, SQL in
the storage. They raise the domain's errors; one interceptor turns these into status codes.
"""

from server.api.interceptors.limits import CallLimits
from server.api.server import ApiServer, Services, build_server
from server.api.transport import CannotListen, TransportSettings

__all__ = ["ApiServer", "CallLimits", "CannotListen", "Services", "TransportSettings", "build_server"]
