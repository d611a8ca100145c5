"""Server reflection, with which grpcurl and similar tools need no .proto files.

grpcio-reflection has v1alpha only; v1 has the same messages under another name, so the same
servicer serves both. Its descriptor is made from that of v1alpha, so that v1 describes itself too.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.text_format import MessageToString, Parse
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection import SERVICE_NAME

V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Serve the descriptors of `services` under both names."""
    _describe_v1()
    servicer = ReflectionServicer([*services, SERVICE_NAME, V1])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (SERVICE_NAME, V1):
        generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))


def _describe_v1() -> None:
    """Add the file of v1 to the descriptors of this process, unless it is there."""
    try:
        Default().FindFileContainingSymbol(V1)
    except KeyError:
        file = FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        renamed = Parse(MessageToString(file).replace("v1alpha", "v1"), FileDescriptorProto())
        Default().AddSerializedFile(renamed.SerializeToString())
