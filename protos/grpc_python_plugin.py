"""A protoc plugin around the generator that grpcio-tools carries.

grpcio-tools ships its Python generator inside its own protoc, not as a
`protoc-gen-*` program, so buf cannot call it. This reads buf's request, runs that
protoc on it and answers with the files it wrote.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Return the `*_pb2_grpc.py` files of the request's files.

    Files without a service get none.
    """
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    with_service = {file.name for file in request.proto_file if file.service}
    wanted = [name for name in request.file_to_generate if name in with_service]
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "request.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(folder, "out")
        out.mkdir()
        status = protoc.main(["protoc", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}", *wanted])
        if status:
            response.error = f"grpc_tools.protoc ended with status {status}"
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=str(path.relative_to(out)), content=path.read_text())
    return response


if __name__ == "__main__":
    asked = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(asked).SerializeToString())
