"""Clients as CSV: the format that import reads and export writes.

Columns: phone and timezone (required), operator_code, tag, window_start, window_end,
opted_out, and one `attributes.NAME` per attribute, in any order; the header is required. An
empty cell means "not given". Reading is streaming and fails with `CsvError`, which names
row and column; nothing is checked here that the service checks too.
"""

from __future__ import annotations

import csv
import io
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple, TextIO

from mailing.builders import new_window, window_times
from mailing.errors import FieldViolation
from mailing.v1.client_pb2 import Client, ReceiveWindow

COLUMNS = ("phone", "operator_code", "tag", "timezone", "window_start", "window_end", "opted_out")
REQUIRED = ("phone", "timezone")
ATTRIBUTE_PREFIX = "attributes."

_FLAGS = {"": None, "false": False, "0": False, "no": False, "true": True, "1": True, "yes": True}
_CLIENTS_FIELD = re.compile(r"clients\[(\d+)\](?:\.(\w+))?(?:[.\[]['\"]?(\w+)['\"]?\]?)?.*")
CACHED_WINDOWS = 10_000
"""Number of different windows after which those seen are forgotten."""

_SPOOL_BYTES = 16 << 20
_LENGTH = struct.Struct("<I")


class CsvError(Exception):
    """A file cannot be imported; the message names row and column."""


class Position(NamedTuple):
    """Where a client is in the file: its row (1 is the first below the header) and that row's first line."""

    row: int
    line: int

    def __str__(self) -> str:
        return f"row {self.row} (line {self.line})"


class ClientReader:
    """Iterates over the clients of a CSV file, once.

    `lines` is an open text file (newline="") or any iterable of lines, `name` its name in
    errors. Memory does not grow with the file.
    """

    def __init__(self, lines: Iterable[str], name: str) -> None:
        self._name = name
        self._reader = csv.reader(lines, strict=True)
        self._windows: dict[tuple[str, str], ReceiveWindow] = {}
        # Rows are lines, except for empty lines and line breaks in quotes: row and line are
        # noted only where their difference changes.
        self._marked_rows = array("q", [0])
        self._marked_lines = array("q", [1])
        self.rows = 0

    def __iter__(self) -> Iterator[Client]:
        try:
            header = next((row for row in self._reader if row), None)
            columns = _columns_of(header, self._name)
            yield from self._clients(columns)
        except csv.Error as error:
            raise CsvError(f"{self._name}, line {self._reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise CsvError(f"{self._name}, after line {self._reader.line_num}: not UTF-8") from None

    def position(self, index: int) -> Position:
        """Return the position of the client with this index, counted from 0."""
        row = index + 1
        mark = bisect_right(self._marked_rows, row) - 1
        return Position(row, self._marked_lines[mark] + row - self._marked_rows[mark])

    def explain(self, violations: Iterable[FieldViolation]) -> list[str]:
        """Return the service's field violations, such as `clients[17].timezone`, by row and column."""
        matches = [(_CLIENTS_FIELD.fullmatch(field), description) for field, description in violations]
        return [
            f"{self._place(int(match[1]), _column_of(match[2], match[3]))}: {description}"
            for match, description in matches
            if match
        ]

    def _clients(self, columns: _Columns) -> Iterator[Client]:
        reader, width, attributes = self._reader, columns.width, columns.attributes
        phone, operator_code, tag, timezone, start, end, opted_out = columns.known
        windows = self._windows
        last_line, shift = reader.line_num, 0
        for row in reader:
            line = last_line + 1
            last_line = reader.line_num
            if not row:
                continue
            self.rows += 1
            if line - self.rows != shift:
                shift = line - self.rows
                self._mark(self.rows, line)
            if len(row) != width:
                raise CsvError(self._wrong_width(row, columns))
            # A column that the file lacks has the index of this empty cell.
            row.append("")
            times = (row[start], row[end])
            yield Client(
                phone=row[phone],
                operator_code=row[operator_code],
                tag=row[tag],
                timezone=row[timezone],
                receive_window=windows.get(times) or self._window(*times) if times != _NO_WINDOW else None,
                opted_out=_FLAGS[row[opted_out]] if row[opted_out] in _FLAGS else self._flag(row[opted_out]),
                attributes={name: row[index] for name, index in attributes if row[index]} if attributes else None,
            )

    def _window(self, start: str, end: str) -> ReceiveWindow:
        if not (start and end):
            column = "window_end" if start else "window_start"
            raise CsvError(f"{self._name}, {self._here(column)}: needed, since the other end of the window is given")
        try:
            window = new_window(start, end)
        except ValueError as error:
            column = "window_start" if repr(start) in str(error) else "window_end"
            raise CsvError(f"{self._name}, {self._here(column)}: {error}") from None
        if len(self._windows) >= CACHED_WINDOWS:
            self._windows.clear()
        self._windows[start, end] = window
        return window

    def _flag(self, text: str) -> bool | None:
        try:
            return _FLAGS[text.strip().lower()]
        except KeyError:
            raise CsvError(f"{self._name}, {self._here('opted_out')}: {text!r} is neither true nor false") from None

    def _mark(self, row: int, line: int) -> None:
        self._marked_rows.append(row)
        self._marked_lines.append(line)

    def _here(self, column: str) -> str:
        return self._place(self.rows - 1, column)

    def _place(self, index: int, column: str) -> str:
        return f"{self.position(index)}" + (f", column {column}" if column else "")

    def _wrong_width(self, row: list[str], columns: _Columns) -> str:
        count = f"{len(row)} cells where the header has {columns.width}"
        missing = columns.header[len(row)] if len(row) < columns.width else ""
        return f"{self._name}, {self._here(missing)}: {count}"


class _Columns(NamedTuple):
    header: list[str]
    width: int
    known: list[int]
    attributes: list[tuple[str, int]]


_NO_WINDOW = ("", "")


def write_clients(clients: Iterable[Client], out: TextIO) -> int:
    """Write clients as CSV and return how many.

    The columns depend on all clients, so these are kept in a temporary file (in memory while
    they are few) until the last one is known.
    """
    with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        names: dict[str, None] = {}
        count = 0
        for client in clients:
            count += 1
            names.update(dict.fromkeys(client.attributes))
            body = client.SerializeToString()
            spool.write(_LENGTH.pack(len(body)) + body)
        spool.seek(0)
        attributes = sorted(names)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*COLUMNS, *(ATTRIBUTE_PREFIX + name for name in attributes)])
        # The csv module leaves a lone carriage return bare, which reads as the end of a row.
        quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for client in _spooled(spool):
            cells = _cells(client, attributes)
            (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    return count


def open_csv(path: str) -> TextIO:
    """Open a CSV file for `ClientReader`: UTF-8, with or without a byte order mark. Raise OSError."""
    return open(path, encoding="utf-8-sig", newline="")


def text_of(stream: BinaryIO) -> TextIO:
    """Return a binary stream, such as standard input, as text for `ClientReader`."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _columns_of(header: list[str] | None, name: str) -> _Columns:
    if header is None:
        raise CsvError(f"{name}: empty, where a header with at least {' and '.join(REQUIRED)} is needed")
    names = [cell.strip() for cell in header]
    unknown = [one for one in names if one not in COLUMNS and not _attribute_of(one)]
    if unknown:
        raise CsvError(
            f"{name}: unknown column {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(COLUMNS)} and attributes.NAME"
        )
    if len(set(names)) != len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise CsvError(f"{name}: column {twice} occurs twice")
    missing = [one for one in REQUIRED if one not in names]
    if missing:
        raise CsvError(f"{name}: column {' and '.join(missing)} is missing")
    width = len(names)
    known = [names.index(one) if one in names else width for one in COLUMNS]
    attributes = [(_attribute_of(one), index) for index, one in enumerate(names) if _attribute_of(one)]
    return _Columns(names, width, known, attributes)


def _attribute_of(column: str) -> str:
    return column.removeprefix(ATTRIBUTE_PREFIX) if column.startswith(ATTRIBUTE_PREFIX) else ""


def _column_of(field: str | None, key: str | None) -> str:
    if field == "attributes":
        return ATTRIBUTE_PREFIX + key if key else field
    if field == "receive_window":
        return "window_end" if key == "duration" else "window_start"
    return field or ""


def _cells(client: Client, attributes: list[str]) -> list[str]:
    start, end = window_times(client.receive_window) if client.HasField("receive_window") else _NO_WINDOW
    opted_out = ("true" if client.opted_out else "false") if client.HasField("opted_out") else ""
    known = [client.phone, client.operator_code, client.tag, client.timezone, start, end, opted_out]
    return known + [client.attributes.get(name, "") for name in attributes]


def _spooled(spool: SpooledTemporaryFile[bytes]) -> Iterator[Client]:
    while head := spool.read(_LENGTH.size):
        yield Client.FromString(spool.read(_LENGTH.unpack(head)[0]))
