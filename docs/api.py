"""Write docs/api.md, the reference of the API, from the protos: `python docs/api.py`.

With --check only compare the page with the protos, and exit with 1 if they differ.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from docs.api_examples import EXAMPLES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
PACKAGE = "mailing.v1"
SERVICES = (
    "ClientService",
    "MailingService",
    "MessageService",
    "DeliveryService",
    "ScheduleService",
    "SegmentService",
    "AdminService",
)
"""In the order of the page."""

_HEAD = """# API reference

<!-- Generated from the protos by `make docs`: change those. -->

Every method of package `mailing.v1`, with one call of each by grpcurl. The lines are for a service on this machine
without authentication; elsewhere leave `-plaintext` out and add `-H "authorization: Bearer $TOKEN"`
([security](security.md)). Every call takes `x-request-id` in its metadata, up to 128 letters, digits and
`._:/+=@-`; it comes back in the trailing metadata and is in the service's log. Why a call may fail, and what to do:
[troubleshooting](troubleshooting.md#error-reasons).
"""
_KINDS = {
    (False, False): "unary",
    (True, False): "client stream",
    (False, True): "server stream",
    (True, True): "stream both ways",
}
_Path = tuple[int, ...]
_FIELD, _MESSAGE, _NESTED, _NESTED_ENUM, _ENUM, _VALUE, _SERVICE, _METHOD = 2, 4, 3, 4, 5, 2, 6, 2
"""Field numbers of descriptors, which are the steps of the paths to comments."""


class File(NamedTuple):
    """A proto file and the comments of it, by the path to what they are about."""

    proto: FileDescriptorProto
    comments: Mapping[_Path, str]


def read_protos(root: Path = ROOT) -> list[File]:
    """Return the package's files. Raise RuntimeError when they do not compile."""
    # buf stands beside the interpreter, whether or not its folder is on PATH.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(["buf", "build", "-o", "-"], cwd=root, env=environment, capture_output=True, check=False)  # noqa: S607
    if run.returncode:
        raise RuntimeError(f"the protos do not compile: {run.stderr.decode()}")
    files = FileDescriptorSet.FromString(run.stdout).file
    return [
        File(one, {tuple(place.path): place.leading_comments for place in one.source_code_info.location})
        for one in files
        if one.package == PACKAGE
    ]


def reference(files: list[File]) -> str:
    """Return the page. Raise KeyError for a method without an example."""
    messages = {name: part for file in files for name, part in _messages(file)}
    parts = [_HEAD]
    for service in SERVICES:
        parts += _service(service, files, messages)
    inner = {kind for file in files for kind in _requests_and_responses(file)}
    parts.append("## Messages and enums\n")
    for file in files:
        named = [*_messages(file), *_enums(file)]
        parts += [f"### {name}\n\n{part}" for name, part in named if name not in inner]
    return "\n".join(parts)


def _service(name: str, files: list[File], messages: Mapping[str, str]) -> Iterator[str]:
    for file in files:
        for number, service in enumerate(file.proto.service):
            if service.name == name:
                yield f"## {name}\n\n{_prose(file, (_SERVICE, number))}\n"
                for place, method in enumerate(service.method):
                    comment = _prose(file, (_SERVICE, number, _METHOD, place))
                    yield f"### {method.name}\n\n{comment}\n\n{_call(name, method)}\n{_exchange(method, messages)}"


def grpcurl(service: str, method: str) -> str:
    """Return the line that calls a method."""
    example = EXAMPLES[f"{service}.{method}"]
    data = f"-d '{example}' " if example else ""
    return f"grpcurl -plaintext {data}localhost:50051 {PACKAGE}.{service}/{method}"


def _call(service: str, method: MethodDescriptorProto) -> str:
    return f"```sh\n{grpcurl(service, method.name)}\n```\n"


def _exchange(method: MethodDescriptorProto, messages: Mapping[str, str]) -> str:
    request, response = _short(method.input_type), _short(method.output_type)
    kind = _KINDS[method.client_streaming, method.server_streaming]
    return f"A {kind} call.\n\n`{request}`\n\n{messages[request]}\n`{response}`\n\n{messages[response]}"


def _requests_and_responses(file: File) -> Iterator[str]:
    for service in file.proto.service:
        for method in service.method:
            yield from (_short(method.input_type), _short(method.output_type))


def _messages(file: File) -> Iterator[tuple[str, str]]:
    """Yield the name and the description of every message, nested ones included."""
    for name, message, path in _tree(file):
        yield name, _message(file, message, path)


def _enums(file: File) -> Iterator[tuple[str, str]]:
    """Yield the name and the description of every enum, nested ones included."""
    for number, enum in enumerate(file.proto.enum_type):
        yield enum.name, _enum(file, enum, (_ENUM, number))
    for name, message, path in _tree(file):
        for number, enum in enumerate(message.enum_type):
            yield f"{name}.{enum.name}", _enum(file, enum, (*path, _NESTED_ENUM, number))


def _tree(file: File) -> Iterator[tuple[str, DescriptorProto, _Path]]:
    """Yield every message with its full name and the path to it; entries of maps are left out."""

    def below(message: DescriptorProto, path: _Path, prefix: str) -> Iterator[tuple[str, DescriptorProto, _Path]]:
        name = f"{prefix}{message.name}"
        yield name, message, path
        for number, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from below(nested, (*path, _NESTED, number), f"{name}.")

    for number, message in enumerate(file.proto.message_type):
        yield from below(message, (_MESSAGE, number), "")


def _message(file: File, message: DescriptorProto, path: _Path) -> str:
    comment = _prose(file, path)
    if not message.field:
        return f"{comment}\n"
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = [
        f"| `{field.name}` | {_type(field, entries)} | {_cell(file, (*path, _FIELD, number))} |"
        for number, field in enumerate(message.field)
    ]
    return "\n".join([comment, "", "| Field | Type | Meaning |", "|---|---|---|", *rows, ""])


def _enum(file: File, enum: EnumDescriptorProto, path: _Path) -> str:
    rows = [
        f"| `{value.name}` | {value.number} | {_cell(file, (*path, _VALUE, number))} |"
        for number, value in enumerate(enum.value)
    ]
    return "\n".join([_prose(file, path), "", "| Value | Number | Meaning |", "|---|---|---|", *rows, ""])


def _type(field: FieldDescriptorProto, entries: Mapping[str, DescriptorProto]) -> str:
    name = _short(field.type_name)
    entry = entries.get(name.rpartition(".")[2])
    if entry:
        key, value = entry.field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    if field.type_name.startswith(f".{PACKAGE}."):
        shown = f"[{name}](#{name.lower().replace('.', '')})"
    else:
        shown = name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"list of {shown}" if field.label == FieldDescriptorProto.LABEL_REPEATED else shown


def _short(name: str) -> str:
    return name.removeprefix(f".{PACKAGE}.").removeprefix(".google.protobuf.")


def _prose(file: File, path: _Path) -> str:
    """Return a comment as paragraphs of one line each."""
    lines = [line.strip() for line in file.comments.get(path, "").strip().splitlines()]
    return "\n\n".join(" ".join(part.split("\n")) for part in "\n".join(lines).split("\n\n")).replace("<", "\\<")


def _cell(file: File, path: _Path) -> str:
    return _prose(file, path).replace("\n\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    page = reference(read_protos())
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        sys.exit("docs/api.md is out of date: run `make docs` and commit the result.")
