"""Tables for people, and how single values are written in them.

Tables never wrap into one another and never let stored text control the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mailing.cli.failures import printable


def new_table(*columns: str) -> Table:
    """Return an empty table.

    A column named with a leading '>' holds numbers; one with '~' takes the room that is left and is cut to it.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        flexible = column.startswith("~")
        table.add_column(
            column.removeprefix(">").removeprefix("~"),
            justify="right" if column.startswith(">") else "left",
            overflow="ellipsis" if flexible else "fold",
            no_wrap=flexible,
            ratio=1 if flexible else None,
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
    return Text(printable(value))


def moment(timestamp: Timestamp) -> str:
    """Return a moment in the time zone of this machine, to the second; '' when it is not set."""
    if not (timestamp.seconds or timestamp.nanos):
        return ""
    try:
        return timestamp.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (OverflowError, ValueError):
        return str(timestamp.seconds)


def short_moment(timestamp: Timestamp) -> str:
    """Return a moment as people say it: the time of today, else the day as well; '' when it is not set."""
    text = moment(timestamp)
    if len(text) < 19:
        return text
    today = datetime.now().astimezone().strftime("%Y-%m-%d")
    return text[11:19] if text.startswith(today) else text[5:16]


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
