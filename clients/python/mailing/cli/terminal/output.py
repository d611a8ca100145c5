"""How answers are printed: as tables for people or as JSON documents for programs.

JSON follows the protobuf mapping with the contract's field names, with two differences that
suit programs: 64-bit integers are numbers, and fields without presence are always there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from rich.table import Table
from rich.text import Text

from mailing.cli.session import Session
from mailing.cli.terminal.tables import cell, fitted, new_table

_LONG = {
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
}
_WELL_KNOWN = "google.protobuf."


def document_of(message: ProtoMessage) -> dict[str, Any]:
    """Return a message as a JSON document."""
    document: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _convert_longs(document, message.DESCRIPTOR)
    return document


def json_text(document: Any, indent: int | None = None) -> str:
    """Return a document as JSON that controls no terminal: what cannot be printed is escaped."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def print_message(session: Session, message: ProtoMessage, table: Callable[[], Table]) -> None:
    """Print one message, as JSON or as the table that `table` returns."""
    if session.json:
        print_json(session, document_of(message))
    else:
        print_table(session, table())


def print_table(session: Session, table: Table) -> None:
    """Print a table as wide as the terminal, with --wide as wide as it is."""
    session.out.print(fitted(table, session.out.width) if table.show_header else table)


def print_cut(session: Session, line: Text) -> None:
    """Print one line; on a terminal it is cut to the width, unless --wide is given."""
    cut = session.out.is_terminal and not session.wide
    session.out.print(line, no_wrap=True, overflow="ellipsis" if cut else "ignore", crop=cut, soft_wrap=not cut)


def print_json(session: Session, document: Any) -> None:
    """Print one JSON document."""
    session.out.file.write(json_text(document, indent=2) + "\n")


def print_line(session: Session, document: Any) -> None:
    """Print one JSON document of a stream, on a line of its own, and flush it."""
    session.out.file.write(json_text(document) + "\n")
    session.out.file.flush()


def print_list(
    session: Session,
    key: str,
    items: Iterable[ProtoMessage],
    limit: int,
    columns: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    *more: str,
) -> None:
    """Print up to `limit` items (0: all), and whether there are more.

    A row has a cell for each of `columns` and of `more`, which are columns that only --wide shows.

    JSON is written while items are read, one per line, so a list may have any length.
    """
    iterator = iter(items)
    shown = islice(iterator, limit) if limit else iterator
    if session.json:
        # The first item is read before anything is written: a call that fails prints no half document.
        out, separator, head = session.out.file, "\n  ", list(islice(shown, 1))
        out.write(f"{{{json.dumps(key)}: [")
        for item in chain(head, shown):
            out.write(separator + json_text(document_of(item)))
            separator = ",\n  "
        out.write(f'\n], "more": {json.dumps(next(iterator, None) is not None)}}}\n')
        return
    columns = [*columns, *more] if session.wide else columns
    table = new_table(*columns)
    for item in shown:
        table.add_row(*map(cell, row(item)[: len(columns)]))
    print_table(session, table)
    if next(iterator, None) is not None:
        session.err.print(f"There are more: --limit {limit * 10} shows more, --limit 0 all.")


def _convert_longs(document: dict[str, Any], descriptor: Any) -> None:
    for field in descriptor.fields:
        value = document.get(field.name)
        if value is None:
            continue
        if field.cpp_type in _LONG:
            document[field.name] = [int(one) for one in value] if isinstance(value, list) else int(value)
        elif field.message_type and not field.message_type.full_name.startswith(_WELL_KNOWN):
            _convert_below(value, field.message_type)


def _convert_below(value: Any, descriptor: Any) -> None:
    if not descriptor.GetOptions().map_entry:
        for one in value if isinstance(value, list) else [value]:
            _convert_longs(one, descriptor)
