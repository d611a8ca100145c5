"""Reads the project's documents as tests do: their shell lines, calls by grpcurl, blocks and anchors.

Knows nothing of what a page should say; tests/project does.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from mailing.v1 import (
    admin_service_pb2,
    client_service_pb2,
    delivery_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
    schedule_service_pb2,
    segment_service_pb2,
)
from tests.support.project import ROOT

DOCS = ROOT / "docs"
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted(DOCS.glob("*.md")),
    *sorted((ROOT / "clients").glob("*/README.md")),
]
SERVED = (
    admin_service_pb2,
    client_service_pb2,
    delivery_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
    schedule_service_pb2,
    segment_service_pb2,
    health_pb2,
    reflection_pb2,
)
SERVICES: dict[str, ServiceDescriptor] = {
    service.full_name: service for module in SERVED for service in module.DESCRIPTOR.services_by_name.values()
}
_KINDS = {(False, False): "unary", (True, False): "client stream", (False, True): "server stream"}


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return what is below a heading, up to the next one of its level or above. Raise ValueError without it."""
    lines, level = text.splitlines(), heading.index(" ")
    numbers = [number for number, _ in _headings(lines)]
    (begin,) = [number for number, title in _headings(lines) if title == heading]
    ends = (number for number in numbers if number > begin and lines[number].index(" ") <= level)
    return "\n".join(lines[begin + 1 : next(ends, len(lines))]) + "\n"


def _headings(lines: Sequence[str]) -> list[tuple[int, str]]:
    """Return the headings with the numbers of their lines; a comment in a code block is none."""
    found, in_block = [], False
    for number, line in enumerate(lines):
        in_block ^= line.startswith("```")
        if not in_block and re.match(r"#+ ", line):
            found.append((number, line))
    return found


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_lines(text: str, command: str) -> list[str]:
    """Return the lines of the shell blocks that begin with a command."""
    return [line for block in blocks(text, "sh") for line in block.splitlines() if line.split()[:1] == [command]]


def json_documents(text: str) -> list[Any]:
    """Return the JSON documents that stand in a text one after the other."""
    decoder, position = json.JSONDecoder(), 0
    found: list[Any] = []
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        found.append(document)
        position += len(text[position:]) - len(text[position:].lstrip())
    return found


def check_call(line: str) -> str:
    """Check one grpcurl line against the descriptors and return the kind of its method."""
    words = shlex.split(re.sub(r" -max-time \d+", "", line), comments=True)[1:]
    assert words.pop(0) == "-plaintext"
    data = words.pop(1) if words[0] == "-d" else "{}"
    host, symbol = [word for word in words if word != "-d"]
    assert host == "localhost:50051"
    service, _, name = symbol.partition("/")
    method = SERVICES[service].methods_by_name[name]
    documents = json_documents(data)
    assert len(documents) == 1 or method.client_streaming
    for document in documents:
        if "update_mask" in document:  # grpcurl writes a mask as a message, protobuf's own JSON as a string
            document["update_mask"] = ",".join(document["update_mask"]["paths"])
        json_format.ParseDict(document, message_factory.GetMessageClass(method.input_type)())
    return _KINDS[method.client_streaming, method.server_streaming]


def anchors(document: Path) -> set[str]:
    """Return what links into a document may name behind `#`."""
    titles = [line.lstrip("# ") for _, line in _headings(document.read_text(encoding="utf-8").splitlines())]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
