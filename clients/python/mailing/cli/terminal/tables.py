"""Tables for people, and how single values are written in them.

A row of a table is a line of the screen: what is too wide for it is cut, unless `--wide` is given. Stored text never
controls the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mailing.cli.failures import printable

_CUT_FIRST = 10**6
"""Marks a column of a new table, as its largest width."""

_GAP, _EDGES = 2, 2
_NARROWEST = 5
"""Characters between two columns and at the edges, and what is left of a column that is cut."""


def new_table(*columns: str) -> Table:
    """Return an empty table.

    A column named with a leading '>' holds numbers; those with '~' are cut first when a row does not fit.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column.removeprefix(">").removeprefix("~"),
            justify="right" if column.startswith(">") else "left",
            overflow="ellipsis",
            no_wrap=True,
            max_width=_CUT_FIRST if column.startswith("~") else None,
        )
    return table


def fitted(table: Table, width: int) -> Table:
    """Return a table of `new_table` with its columns so wide that a row fits into `width` characters."""
    widths = [max(map(_width, (column.header, *column.cells))) for column in table.columns]
    excess = sum(widths) + _GAP * (len(widths) - 1) + _EDGES - width
    cut_first = [number for number, column in enumerate(table.columns) if column.max_width == _CUT_FIRST]
    others = [number for number in range(len(widths)) if number not in cut_first]
    for group in (cut_first, others):
        while excess > 0 and (widest := max(group, key=widths.__getitem__, default=None)) is not None:
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
            excess -= 1
    for column, found in zip(table.columns, widths, strict=True):
        column.max_width, column.width = None, max(found, 1)
    return table


def _width(content: RenderableType) -> int:
    return content.cell_len if isinstance(content, Text) else cell_len(str(content))


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
    """Return the time of today, the day of another year, else day and time; '' when it is not set."""
    text = moment(timestamp)
    if len(text) < 19:
        return text
    today = datetime.now().astimezone().strftime("%Y-%m-%d")
    if text.startswith(today):
        return text[11:19]
    return text[5:16] if text.startswith(today[:5]) else text[:10]


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
