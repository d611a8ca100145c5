"""Tables for people, and how single values are written in them.

Tables never wrap into one another and never let stored text control the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


def new_table(*columns: str) -> Table:
    """Return an empty table; a column named with a leading '>' holds numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return table


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    """Return a table of names and values without the empty values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(name, cell(value))
    return table


def cell(value: str) -> Text:
    """Return stored text so that it can neither style nor control the terminal."""
    if value.isprintable():
        return Text(value)
    return Text("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value))


def moment(timestamp: Timestamp) -> str:
    """Return a moment in the time zone of this machine, to the second; '' when it is not set."""
    if not (timestamp.seconds or timestamp.nanos):
        return ""
    try:
        return timestamp.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (OverflowError, ValueError):
        return str(timestamp.seconds)


def pairs(mapping: Any) -> str:
    """Return a map as "name=value, …" in the order of the names."""
    return ", ".join(f"{name}={mapping[name]}" for name in sorted(mapping))


def enum_name(message: ProtoMessage, field: str) -> str:
    """Return an enum value without its prefix, such as RUNNING; '' for the unspecified one."""
    enum: Any = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field)
    if not number:
        return ""
    known = enum.values_by_number.get(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return known.name.removeprefix(prefix) if known else str(number)
