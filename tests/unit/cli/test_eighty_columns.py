"""Every command on a terminal of 80 columns, against a service whose answers are as wide as they get."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.message_factory import GetMessageClass
from rich.cells import cell_len
from typer.main import get_command

from mailing.cli.app import app
from tests.support.documents import SERVICES
from tests.support.terminal import shown

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

ITEMS = 3
"""How many things a list has."""

WIDE = "a text of a hundred characters, with words from here to there and back, so that no line can hold it all"
ARGUMENTS = {
    "attempts": "4294967393",
    "cancel": "7",
    "clients add": "+79161234567 --timezone Europe/Moscow",
    "clients delete": "+79161234567",
    "clients get": "+79161234567",
    "clients opt-in": "+79161234567",
    "clients opt-out": "+79161234567",
    "clients update": "+79161234567 --tag vip",
    "dispatchers list": "",
    "dispatchers pause": "",
    "dispatchers resume": "",
    "dispatchers settings": "",
    "endpoints": "",
    "health": "",
    "ledger verify": "",
    "log": "",
    "mailings cancel": "7",
    "mailings delete": "7",
    "mailings get": "7",
    "mailings list": "",
    "mailings pause": "7",
    "mailings resume": "7",
    "mailings retry": "7 --status failed",
    "mailings update": "7 --title new",
    "messages get": "4294967393",
    "messages list": "--mailing-id 7",
    "clients list": "",
    "pause": "7",
    "preview": "7",
    "report": "7",
    "resume": "7",
    "retry": "7 --status failed",
    "story": "+79161234567",
    "tail": "--limit 3",
    "test": "7 79161234567",
    "version": "",
    "webhooks": "",
}
"""What is typed behind each command."""

ELSEWHERE = {
    "clients export": "writes a file of its own width",
    "clients import": "reads a file; its table has six narrow columns",
    "demo": "starts a service",
    "mailings create": "asks on a terminal",
    "messages export": "writes a file of its own width",
    "serve": "is a service",
    "top": "is a full screen: test_top.py",
    "watch": "is live, and ends when the mailing does",
}


def commands(group: Any, path: str = "") -> Iterator[str]:
    """Yield the names of all commands that help shows."""
    for name, command in group.commands.items():
        if not command.hidden:
            yield from commands(command, f"{path}{name} ") if hasattr(command, "commands") else [f"{path}{name}"]


ALL = list(commands(get_command(app)))
LISTS = [
    name for name in ALL if name.endswith(" list") or name in ("attempts", "endpoints", "ledger verify", "webhooks")
]
TRIED = [name for name in ALL if name in ARGUMENTS or name in LISTS]


def fill(message: Any, depth: int = 0) -> Any:
    """Set every field of a message, with values that take much room."""
    for field in message.DESCRIPTOR.fields:
        if field.name.endswith("page_token") or (field.message_type and depth > 4):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            _put(getattr(message, field.name), field, depth)
        elif field.is_repeated:
            for number in range(ITEMS):
                _append(getattr(message, field.name), field, number, depth)
        elif field.message_type:
            _fill_one(getattr(message, field.name), depth)
        else:
            setattr(message, field.name, _value(field))
    return message


def _put(values: Any, field: FieldDescriptor, depth: int) -> None:
    """Put an entry into a map."""
    assert field.message_type
    value = field.message_type.fields_by_name["value"]
    key = "a name" if field.message_type.fields_by_name["key"].cpp_type == FieldDescriptor.CPPTYPE_STRING else 7
    if value.message_type:
        _fill_one(values[key], depth)
    else:
        values[key] = _value(value)


def _append(values: Any, field: FieldDescriptor, number: int, depth: int) -> None:
    if field.message_type:
        _fill_one(values.add(), depth)
    else:
        values.append(_value(field))


def _fill_one(message: Any, depth: int) -> None:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        message.seconds = 1_764_000_000
    elif name == "google.protobuf.Duration":
        message.seconds, message.nanos = 12_345, 678_000_000
    elif name == "mailing.v1.TimeOfDay":
        message.hours = 9
    else:
        message.SetInParent()
        fill(message, depth + 1)


def _value(field: FieldDescriptor) -> Any:
    if field.enum_type:
        return max(field.enum_type.values[1:], key=lambda one: len(one.name)).number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b""
    if field.name == "operator_code":
        return "916"
    if field.name == "phone":
        return "491234567890123"
    if field.name in ("time_zone", "timezone"):
        return "America/Argentina/ComodRivadavia"
    kinds = {FieldDescriptor.CPPTYPE_STRING: WIDE, FieldDescriptor.CPPTYPE_BOOL: True}
    kinds |= dict.fromkeys((FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT), 123_456.7)
    kinds |= dict.fromkeys((FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32), 503)
    return kinds.get(field.cpp_type, 8_590_000_123 if field.name.endswith("id") else 1_234_567)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of a service that answers every call with all that there can be."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([_handler(name) for name in SERVICES])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def _handler(service: str) -> grpc.GenericRpcHandler:
    handlers = {}
    for method in SERVICES[service].methods:
        answer = fill(GetMessageClass(method.output_type)())
        reads = GetMessageClass(method.input_type).FromString
        if hasattr(answer, "status") and service == "grpc.health.v1.Health":
            answer.status = 1
        if method.server_streaming:
            behaviour = grpc.unary_stream_rpc_method_handler(_several(answer), reads, type(answer).SerializeToString)
        else:
            behaviour = grpc.unary_unary_rpc_method_handler(_one(answer), reads, type(answer).SerializeToString)
        handlers[method.name] = behaviour
    return grpc.method_handlers_generic_handler(service, handlers)


def _one(answer: ProtoMessage) -> Any:
    return lambda request, context: answer


def _several(answer: ProtoMessage) -> Any:
    return lambda request, context: iter([answer])


def test_what_is_left_out_is_there_and_has_a_reason() -> None:
    assert sorted({*ARGUMENTS, *ELSEWHERE} - set(ALL)) == []
    assert sorted(set(TRIED) & set(ELSEWHERE)) == []


@pytest.mark.parametrize("name", ALL)
def test_help_is_not_wider_than_the_screen(address: str, name: str) -> None:
    status, lines = shown(*name.split(), "--help", address=address)
    assert status == 0
    assert [line for line in lines if cell_len(line) > 80] == []


@pytest.mark.parametrize("name", TRIED)
def test_nothing_is_wider_than_the_screen(address: str, name: str) -> None:
    status, lines = shown(*name.split(), *ARGUMENTS.get(name, "").split(), address=address)
    assert status in (0, 1 if name == "ledger verify" else 4), lines
    assert lines
    sentences = [line for line in lines if line.startswith("mailing: ")]
    assert [line for line in lines if cell_len(line) > 80 and line not in sentences] == []


@pytest.mark.parametrize("name", LISTS)
def test_a_row_of_a_list_is_a_line(address: str, name: str) -> None:
    """Fails for a cell that is folded, and with --wide for one that is cut."""
    _, lines = shown(*name.split(), *ARGUMENTS.get(name, "").split(), address=address)
    rule = next(number for number, line in enumerate(lines) if "──" in line)
    assert len([line for line in lines[rule + 1 :] if line.strip() and "stopped" not in line]) == ITEMS, lines
    _, lines = shown(*name.split(), *ARGUMENTS.get(name, "").split(), "--wide", address=address)
    assert "…" not in "".join(lines)
    assert max(map(cell_len, lines)) > 80
