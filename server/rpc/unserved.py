"""Services that belong to the contract and that this version does not serve yet.

Each of their methods answers UNIMPLEMENTED with a reason, instead of being unknown.
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from server.domain.errors import NotServedYet
from server.rpc.handlers import Context


def unserved_service(service: ServiceDescriptor) -> grpc.GenericRpcHandler:
    """Returns the handler of a service none of whose methods is served."""
    handlers = {method.name: _unserved_method(method) for method in service.methods}
    made: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(service.full_name, handlers)
    return made


def _unserved_method(method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(request: object, context: Context) -> NoReturn:
        raise NotServedYet(method.name)

    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
