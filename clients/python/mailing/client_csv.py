"""Clients as CSV: the format that import reads and export writes.

Columns: phone and timezone (required), operator_code, tag, window_start, window_end,
opted_out, and one `attributes.NAME` per attribute, in any order; the header is required. What
has no column stays as it is stored; an empty cell clears what is stored, but in opted_out it
says nothing. Phones may be written as people do. Reading is streaming and goes on behind bad rows;
at its end it fails with a `CsvError` that names them by row and column. Nothing is checked here
that the service checks too.
"""

from __future__ import annotations

import csv
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple, TextIO

from mailing.builders import new_window, window_times
from mailing.csv_source import (
    ATTRIBUTE_PREFIX,
    COLUMNS,
    attribute_column,
    column_of,
    looks_like_utf16,
    open_csv,
    text_of,
    with_separator,
    wrong_encoding,
)
from mailing.errors import FieldViolation
from mailing.v1.client_pb2 import Client, ReceiveWindow

__all__ = ["COLUMNS", "ClientReader", "CsvError", "open_csv", "text_of", "write_clients"]

REQUIRED = ("phone", "timezone")

MAX_CELL = 1 << 20
"""Characters of one cell: a longer one is most likely a quote that is not closed."""

MAX_COMPLAINTS = 1000
"""Bad rows that are named; all are counted."""

_SHOWN = 20
_SEPARATING = re.compile(r"[\s().\-\u2010-\u2015/]+")
_FLAGS = {"": None, "false": False, "0": False, "no": False, "true": True, "1": True, "yes": True}
_CLIENTS_FIELD = re.compile(r"clients\[(\d+)\](?:\.(\w+))?(?:[.\[]['\"]?(\w+)['\"]?\]?)?.*")
CACHED_WINDOWS = 10_000
"""Number of different windows after which those seen are forgotten."""

_SPOOL_BYTES = 16 << 20
_LENGTH = struct.Struct("<I")


class CsvError(Exception):
    """A file cannot be imported; the message names row and column.

    `bad_rows` counts the rows that are bad, and `complaints` says why, for the first ones.
    """

    def __init__(self, message: str, complaints: Sequence[str] = (), bad_rows: int = 0) -> None:
        super().__init__(message)
        self.complaints = tuple(complaints)
        self.bad_rows = bad_rows


class _BadRow(Exception):
    """A row cannot be read; the message names row and column."""


class Position(NamedTuple):
    """Where a client is in the file: its row (1 is the first below the header) and that row's first line."""

    row: int
    line: int

    def __str__(self) -> str:
        return f"row {self.row} (line {self.line})"


class ClientReader:
    """Iterates over the clients of a CSV file, once.

    `lines` is an open text file (newline="") or any iterable of lines, `name` its name in
    errors. National numbers are numbers of `country_code`, and are refused without one. With
    `other_columns` every column that is unknown is an attribute. Memory does not grow with the file.
    """

    def __init__(self, lines: Iterable[str], name: str, *, country_code: str = "", other_columns: bool = False) -> None:
        self.name = name
        self._lines = lines
        self._country_code = country_code.removeprefix("+")
        self._other_columns = other_columns
        self._complaints: list[str] = []
        self._bad_rows = 0
        self._reader: Any = None
        self._read_columns: _Columns | None = None
        self._windows: dict[tuple[str, str], ReceiveWindow] = {}
        # Rows are lines, except for empty lines and line breaks in quotes: row and line are
        # noted only where their difference changes.
        self._marked_rows = array("q", [0])
        self._marked_lines = array("q", [1])
        self.rows = 0

    def fields(self) -> list[str]:
        """Return the fields of a client that the header's columns speak of. Raise CsvError."""
        with self._errors():
            return _fields_of(self._columns().header)

    def __iter__(self) -> Iterator[Client]:
        with self._errors():
            yield from self._clients(self._columns())

    def _columns(self) -> _Columns:
        if self._read_columns is None:
            lines, separator = with_separator(self._lines)
            csv.field_size_limit(MAX_CELL)
            self._reader = csv.reader(lines, delimiter=separator, strict=True)
            header = next((row for row in self._reader if row), None)
            self._read_columns = _columns_of(header, self.name, self._other_columns)
        return self._read_columns

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except csv.Error as error:
            raise CsvError(f"{self.name}, line {self._line}: {_sentence(error)}") from None
        except UnicodeError as error:
            raise CsvError(f"{self.name}, after line {self._line}: {wrong_encoding(error)}") from None

    @property
    def _line(self) -> int:
        return self._reader.line_num if self._reader else 0

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
        for row in self._rows():
            try:
                yield self._client(row, columns)
            except _BadRow as error:
                self._bad_rows += 1
                if len(self._complaints) < MAX_COMPLAINTS:
                    self._complaints.append(str(error))
        if self._bad_rows:
            raise CsvError(self._summary(), self._complaints, self._bad_rows)

    def _summary(self) -> str:
        more = self._bad_rows - _SHOWN
        rest = f"; and {more:,} more bad rows" if more > 0 else ""
        return f"{self.name}, {'; '.join(self._complaints[:_SHOWN])}{rest}"

    def _rows(self) -> Iterator[list[str]]:
        """Yield the rows that are not empty, and note where they are."""
        reader = self._reader
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
            yield row

    def _client(self, row: list[str], columns: _Columns) -> Client:
        phone, operator_code, tag, timezone, start, end, opted_out = columns.known
        if len(row) != columns.width:
            raise _BadRow(self._wrong_width(row, columns))
        # A column that the file lacks has the index of this empty cell.
        row.append("")
        number, flag, times = row[phone], row[opted_out], (row[start], row[end])
        return Client(
            phone=number if number.isdecimal() and not _is_national(number) else self._phone(number),
            operator_code=row[operator_code],
            tag=row[tag],
            timezone=row[timezone],
            receive_window=self._windows.get(times) or self._window(*times) if times != _NO_WINDOW else None,
            opted_out=_FLAGS[flag] if flag in _FLAGS else self._flag(flag),
            attributes={name: row[index] for name, index in columns.attributes if row[index]},
        )

    def _phone(self, text: str) -> str:
        """Return the digits of a phone as people write it, with the country code. Raise _BadRow."""
        number = _SEPARATING.sub("", text)
        if number.startswith(("+", "00")):
            return number.removeprefix("+").removeprefix("00")
        if not number.isdecimal() or not _is_national(number):
            return number
        if not self._country_code:
            start = "0" if number.startswith("0") else "89"
            raise _BadRow(
                f"{self._here('phone')}: is a national number, since it begins with {start}: "
                "write it with + and the country code, or repeat with --country-code, such as 7"
            )
        return self._country_code + number[1:]

    def _window(self, start: str, end: str) -> ReceiveWindow:
        if not (start and end):
            column = "window_end" if start else "window_start"
            raise _BadRow(f"{self._here(column)}: needed, since the other end of the window is given")
        try:
            window = new_window(start, end)
        except ValueError as error:
            column = "window_start" if repr(start) in str(error) else "window_end"
            raise _BadRow(f"{self._here(column)}: {error}") from None
        if len(self._windows) >= CACHED_WINDOWS:
            self._windows.clear()
        self._windows[start, end] = window
        return window

    def _flag(self, text: str) -> bool | None:
        try:
            return _FLAGS[text.strip().lower()]
        except KeyError:
            raise _BadRow(f"{self._here('opted_out')}: {text[:40]!r} is neither true nor false") from None

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
        return f"{self._here(missing)}: {count}"


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


def _is_national(number: str) -> bool:
    """Return whether these digits have no country code: none begins with 0, or is 89."""
    return number.startswith("0") or (len(number) == 11 and number.startswith("89"))


def _sentence(error: csv.Error) -> str:
    if "field larger than field limit" in str(error):
        return f"a cell has more than {MAX_CELL:,} characters: is a quote not closed before it?"
    return str(error)


def _columns_of(header: list[str] | None, name: str, other_columns: bool) -> _Columns:
    if header is None:
        raise CsvError(f"{name}: empty, where a header with at least {' and '.join(REQUIRED)} is needed")
    if any(looks_like_utf16(cell) for cell in header):
        raise CsvError(f"{name}: looks like UTF-16 without a byte order mark; repeat with --encoding utf-16-le")
    found = [column_of(cell) or (attribute_column(cell) if other_columns else None) for cell in header]
    unknown = [cell.strip() for cell, column in zip(header, found, strict=True) if column is None]
    if unknown:
        raise CsvError(
            f"{name}: unknown column {', '.join(map(repr, unknown))}; known are {', '.join(COLUMNS)} and "
            "attributes.NAME. Rename it, or repeat with --other-columns to import it as an attribute"
        )
    names = [column for column in found if column is not None]
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


def _fields_of(header: Iterable[str]) -> list[str]:
    windows = {"window_start": "receive_window", "window_end": "receive_window"}
    return list(dict.fromkeys(windows.get(column, column) for column in header))


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
