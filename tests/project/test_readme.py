"""The README is true: its commands, calls, targets, links and settings exist as they are written."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from typer.main import get_command

from docs.settings import PAGE, with_settings
from mailing import MailingClient
from mailing.cli.app import app
from mailing.v1 import (
    admin_service_pb2,
    client_service_pb2,
    delivery_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
)
from tests.support.project import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVED = (
    admin_service_pb2,
    client_service_pb2,
    delivery_service_pb2,
    mailing_service_pb2,
    message_service_pb2,
    health_pb2,
    reflection_pb2,
)
SERVICES: dict[str, ServiceDescriptor] = {
    service.full_name: service for module in SERVED for service in module.DESCRIPTOR.services_by_name.values()
}


def shell_lines(text: str, command: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.split()[:1] == [command]]


def json_documents(text: str) -> list[Any]:
    decoder, position = json.JSONDecoder(), 0
    found: list[Any] = []
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        found.append(document)
        position += len(text[position:]) - len(text[position:].lstrip())
    return found


def check_call(line: str) -> str:
    """Check one grpcurl line against the descriptors and return the kind of its method."""
    words = shlex.split(line, comments=True)[1:]
    assert words.pop(0) == "-plaintext"
    data = words.pop(1) if words[0] == "-d" else "{}"
    host, symbol = [word for word in words if word != "-d"]
    assert host == "localhost:50051"
    service, _, name = symbol.partition("/")
    method = SERVICES[service].methods_by_name[name]
    documents = json_documents(data)
    assert len(documents) == 1 or method.client_streaming
    for document in documents:
        json_format.ParseDict(document, message_factory.GetMessageClass(method.input_type)())
    return {(False, False): "unary", (True, False): "client stream", (False, True): "server stream"}[
        method.client_streaming, method.server_streaming
    ]


CALLS = [line for line in shell_lines(README, "grpcurl") if "/" in line.split("localhost:50051")[-1]]


@pytest.mark.parametrize("line", CALLS)
def test_a_grpcurl_line_names_a_method_and_parses_into_its_request(line: str) -> None:
    check_call(line)


def test_grpcurl_lines_show_every_kind_of_call_and_are_comfortable() -> None:
    assert {check_call(line) for line in CALLS} == {"unary", "client stream", "server stream"}
    assert max(map(len, CALLS)) < 260


@pytest.mark.parametrize(
    "line",
    [
        "grpcurl -plaintext -d '{\"nonsense\": 1}' localhost:50051 mailing.v1.ClientService/GetClient",
        "grpcurl -plaintext localhost:50051 mailing.v1.ClientService/Nonsense",
    ],
)
def test_a_wrong_grpcurl_line_is_noticed(line: str) -> None:
    with pytest.raises((json_format.ParseError, KeyError)):
        check_call(line)


def test_described_symbols_exist() -> None:
    for line in shell_lines(README, "grpcurl"):
        if " describe " in line:
            assert descriptor_pool.Default().FindMessageTypeByName(line.split()[-1])


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        for target in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets or (target.startswith("bench-") and "bench-%" in targets), f"{path.name}: {target}"


def test_every_benchmark_in_the_documents_exists() -> None:
    from bench.__main__ import MODULES

    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(MODULES)


@pytest.mark.parametrize("line", shell_lines(README, "mailing"))
def test_a_command_line_is_understood(line: str) -> None:
    command: Any = get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    # Raises for an option that is not there and for an argument that is missing.
    command.make_context(command.name, words)


def test_the_settings_table_is_the_code_s() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_settings(page) == page, "run `make generate`"


def test_the_python_example_uses_what_is_there() -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    tree = ast.parse(example[1])
    imports = next(node for node in tree.body if isinstance(node, ast.ImportFrom))
    exec(compile(ast.Module([imports], []), "README", "exec"), {})
    called = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "id", "") == "service"
    }
    assert called
    assert [name for name in called if not hasattr(MailingClient, name)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            document = path.parent / name if name else path
            assert document.exists(), target
            assert not anchor or anchor in anchors(document), target


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
