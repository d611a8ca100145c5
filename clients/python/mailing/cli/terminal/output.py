"""How answers look: tables for people, JSON documents for programs.

JSON follows the protobuf mapping with the contract's field names, with two differences that
programs like: 64-bit integers are numbers, and fields without presence are always there.
Tables never wrap into one another and never let stored text control the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from itertools import chain, islice
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mailing.cli.session import Session

_LONG = {
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
}
_WELL_KNOWN = "google.protobuf."


def document_of(message: ProtoMessage) -> dict[str, Any]:
    """Returns a message as a JSON document."""
    document: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _numbers(document, message.DESCRIPTOR)
    return document


def print_message(session: Session, message: ProtoMessage, table: Callable[[], Table]) -> None:
    """Prints one message: as JSON or as the table made by `table`."""
    if session.json:
        print_json(session, document_of(message))
    else:
        session.out.print(table())


def print_json(session: Session, document: Any) -> None:
    """Prints one JSON document."""
    session.out.file.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def print_line(session: Session, document: Any) -> None:
    """Prints one JSON document of a stream of them, on a line of its own, at once."""
    session.out.file.write(json.dumps(document, ensure_ascii=False) + "\n")
    session.out.file.flush()


def print_list(
    session: Session,
    key: str,
    items: Iterable[ProtoMessage],
    limit: int,
    columns: Sequence[str],
    row: Callable[[Any], Sequence[str]],
) -> None:
    """Prints up to `limit` items (0: all) and says whether there are more.

    JSON is written while it is read, one item a line, so a list may be of any length.
    """
    iterator = iter(items)
    shown = islice(iterator, limit) if limit else iterator
    if session.json:
        # The first item is there before anything is written: a refused call prints no half document.
        out, separator, head = session.out.file, "\n  ", list(islice(shown, 1))
        out.write(f"{{{json.dumps(key)}: [")
        for item in chain(head, shown):
            out.write(separator + json.dumps(document_of(item), ensure_ascii=False))
            separator = ",\n  "
        out.write(f'\n], "more": {json.dumps(next(iterator, None) is not None)}}}\n')
        return
    table = new_table(*columns)
    for item in shown:
        table.add_row(*map(cell, row(item)))
    session.out.print(table)
    if next(iterator, None) is not None:
        session.err.print(f"There are more: --limit {limit * 10} shows more, --limit 0 all.")


def new_table(*columns: str) -> Table:
    """Returns an empty table; a column named with a leading '>' holds numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return table


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    """Returns a table of names and values without the empty values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(name, cell(value))
    return table


def cell(value: str) -> Text:
    """Returns stored text so that it can neither style nor steer the terminal."""
    if value.isprintable():
        return Text(value)
    return Text("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value))


def moment(timestamp: Timestamp) -> str:
    """Returns a moment in the zone of this machine, to the second; '' when it is not set."""
    if not (timestamp.seconds or timestamp.nanos):
        return ""
    try:
        return timestamp.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (OverflowError, ValueError):
        return str(timestamp.seconds)


def pairs(mapping: Any) -> str:
    """Returns a map as "name=value, …" in the order of the names."""
    return ", ".join(f"{name}={mapping[name]}" for name in sorted(mapping))


def enum_name(message: ProtoMessage, field: str) -> str:
    """Returns an enum value without its prefix, such as RUNNING; '' for the unspecified one."""
    enum: Any = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field)
    if not number:
        return ""
    known = enum.values_by_number.get(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return known.name.removeprefix(prefix) if known else str(number)


def _numbers(document: dict[str, Any], descriptor: Any) -> None:
    for field in descriptor.fields:
        value = document.get(field.name)
        if value is None:
            continue
        if field.cpp_type in _LONG:
            document[field.name] = [int(one) for one in value] if isinstance(value, list) else int(value)
        elif field.message_type and not field.message_type.full_name.startswith(_WELL_KNOWN):
            _numbers_below(value, field.message_type)


def _numbers_below(value: Any, descriptor: Any) -> None:
    if not descriptor.GetOptions().map_entry:
        for one in value if isinstance(value, list) else [value]:
            _numbers(one, descriptor)
