"""Clients as CSV: the format that import reads and export writes.

Columns: phone and timezone (required), operator_code, tag, window_start, window_end,
opted_out, and one `attributes.NAME` per attribute, in any order and under the headings that a `ColumnMap` knows; the
header is required. What has no column stays as it is stored; an empty cell clears what is stored, but in opted_out it
says nothing. Phones may be written as people do. Reading is streaming and goes on behind bad rows;
at its end it fails with a `CsvError` that names them by row and column. Nothing is checked here
that the service checks too.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from mailing.builders import new_window
from mailing.client_columns import ATTRIBUTE_PREFIX, COLUMNS, JSON_COLUMN, ColumnMap, attribute_name, normal
from mailing.client_csv_writer import write_clients
from mailing.csv_source import (
    CsvError,
    open_csv,
    text_of,
    with_separator,
    wrong_encoding,
)
from mailing.errors import FieldViolation
from mailing.phones import Country, is_national, phone_digits
from mailing.v1.client_pb2 import Client, ReceiveWindow

__all__ = ["COLUMNS", "ClientReader", "CsvError", "open_csv", "rows_of", "text_of", "write_clients"]

MAX_CELL = 1 << 20
"""Characters of one cell: a longer one is most likely a quote that is not closed."""

MAX_COMPLAINTS = 1000
"""Bad rows that are named; all are counted."""

CACHED_WINDOWS = 10_000
"""Number of different windows after which those seen are forgotten."""

_SHOWN = 20
_SAYS_NOTHING = ("", "enabled", "subscribed")
_YES, _NO = ("true", "1", "yes", "blocklisted", "unsubscribed"), ("false", "0", "no")
_FLAGS = dict.fromkeys(_SAYS_NOTHING) | dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)
_NO_WINDOW = ("", "")
_SEVERAL = ":::"
"""What stands between several phones in one cell of an address book; the first one counts."""

_PHONE_KEYS = ("phone", "mobile", "phone_number")
_CLIENTS_FIELD = re.compile(r"clients\[(\d+)\](?:\.(\w+))?(?:[.\[]['\"]?(\w+)['\"]?\]?)?.*")


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
    errors. National numbers are numbers of `country`, and are refused without one; an empty time zone is `timezone`.
    With `skip_bad` rows that cannot be read are left out, and are in `bad`. Memory does not grow with the file.
    """

    def __init__(
        self,
        lines: Iterable[str],
        name: str,
        columns: ColumnMap | None = None,
        *,
        country: Country | None = None,
        timezone: str = "",
        skip_bad: bool = False,
    ) -> None:
        self.name = name
        self.rows = 0
        self.bad_rows = 0
        self.bad: dict[int, str] = {}
        """Why the first bad rows are bad, by row."""
        self.separator = ""
        self._lines = lines
        self._map = columns or ColumnMap()
        self._country = country
        self._timezone = timezone
        self._skip_bad = skip_bad
        self._reader: Any = None
        self._read_columns: _Columns | None = None
        self._windows: dict[tuple[str, str], ReceiveWindow] = {}
        self._places = _Places()

    def fields(self) -> list[str]:
        """Return the fields of a client that the header's columns speak of. Raise CsvError."""
        with self._errors():
            return self._columns().fields

    def __iter__(self) -> Iterator[Client]:
        with self._errors():
            yield from self._clients(self._columns())

    def position(self, index: int) -> Position:
        """Return the position of the client with this index, counted from 0."""
        return self._places.of(index)

    def explain(self, violations: Iterable[FieldViolation]) -> dict[int, str]:
        """Return the service's field violations, such as `clients[17].timezone`, with row and column, by row."""
        found: dict[int, str] = {}
        for field, description in violations:
            if match := _CLIENTS_FIELD.fullmatch(field):
                place = self.position(int(match[1]))
                sentence = f"{self._place(place, _column_of(match[2], match[3]))}: {description}"
                found[place.row] = f"{found[place.row]}; {sentence}" if place.row in found else sentence
        return found

    def _columns(self) -> _Columns:
        if self._read_columns is None:
            lines, self.separator = with_separator(self._lines, self._map.knows)
            csv.field_size_limit(MAX_CELL)
            self._reader = csv.reader(lines, delimiter=self.separator, strict=True)
            header = next((row for row in self._reader if row), None)
            self._read_columns = _columns_of(header, self.name, self._map, bool(self._timezone))
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

    def _clients(self, columns: _Columns) -> Iterator[Client]:
        for row in self._rows():
            try:
                client = self._client(row, columns)
            except _BadRow as error:
                self.bad_rows += 1
                if len(self.bad) < MAX_COMPLAINTS:
                    self.bad[self.rows] = str(error)
                continue
            self._places.sent += 1
            yield client
        if self.bad_rows and not self._skip_bad:
            raise CsvError(self._summary(), tuple(self.bad.values()), self.bad_rows)

    def _summary(self) -> str:
        more = self.bad_rows - _SHOWN
        rest = f"; and {more:,} more bad rows" if more > 0 else ""
        return f"{self.name}, {'; '.join([*self.bad.values()][:_SHOWN])}{rest}"

    def _rows(self) -> Iterator[list[str]]:
        """Yield the rows that are not empty, and note where they are."""
        reader, places = self._reader, self._places
        last_line = reader.line_num
        for row in reader:
            line = last_line + 1
            last_line = reader.line_num
            if not row:
                continue
            self.rows += 1
            places.note(self.rows, line)
            yield row

    def _client(self, row: list[str], columns: _Columns) -> Client:
        phone, operator_code, tag, timezone, start, end, opted_out = columns.known
        if len(row) != columns.width:
            raise _BadRow(self._wrong_width(row, columns))
        # A column that the file lacks has the index of this empty cell.
        row.append("")
        number, flag, times = row[phone], row[opted_out], (row[start], row[end])
        attributes = {name: row[index] for name, index in columns.attributes if row[index]}
        if columns.json is not None:
            attributes, number = self._with_json(row[columns.json], attributes, number)
        digits = self._country is None and number.isdecimal() and not is_national(number)
        return Client(
            phone=number if digits else self._phone(number),
            operator_code=row[operator_code],
            tag=row[tag],
            timezone=row[timezone] or self._timezone,
            receive_window=self._windows.get(times) or self._window(*times) if times != _NO_WINDOW else None,
            opted_out=_FLAGS[flag] if flag in _FLAGS else self._flag(flag),
            attributes=attributes,
        )

    def _phone(self, text: str) -> str:
        if _SEVERAL in text:
            text = text.partition(_SEVERAL)[0]
        try:
            return phone_digits(text, self._country)
        except ValueError as error:
            raise _BadRow(f"{self._here('phone')}: {error}") from None

    def _with_json(self, text: str, attributes: dict[str, str], phone: str) -> tuple[dict[str, str], str]:
        """Return the attributes with those of a JSON object, and the phone, which may be one of them."""
        try:
            found = json.loads(text or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _BadRow(f"{self._here(JSON_COLUMN)}: is no JSON object")
        named = {attribute_name(key): value for key, value in found.items() if value is not None}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in named.items() if name}
        for key in _PHONE_KEYS:
            if not phone and key in texts:
                phone = texts.pop(key)
        return texts | attributes, phone

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

    def _here(self, column: str) -> str:
        return self._place(self._places.here, column)

    def _place(self, position: Position, column: str) -> str:
        headings = self._read_columns.headings if self._read_columns else {}
        return f"{position}" + (f", column {headings.get(column, column)}" if column else "")

    def _wrong_width(self, row: list[str], columns: _Columns) -> str:
        count = f"{len(row)} cells where the header has {columns.width}"
        missing = columns.header[len(row)] if len(row) < columns.width else ""
        return f"{self._here(missing)}: {count}"


class _Places:
    """Where clients stand in the file.

    Rows are lines, except for empty lines and line breaks in quotes, and clients are rows, except for bad ones:
    client, row and line are noted only where their differences change.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.here = Position(0, 1)
        self._clients, self._rows, self._lines = array("q", [0]), array("q", [1]), array("q", [2])
        self._row_shift, self._line_shift = 1, 1

    def note(self, row: int, line: int) -> None:
        """Note where the next row is."""
        self.here = Position(row, line)
        if row - self.sent != self._row_shift or line - row != self._line_shift:
            self._row_shift, self._line_shift = row - self.sent, line - row
            self._clients.append(self.sent)
            self._rows.append(row)
            self._lines.append(line)

    def of(self, index: int) -> Position:
        """Return where the client with this index is."""
        mark = bisect_right(self._clients, index) - 1
        more = index - self._clients[mark]
        return Position(self._rows[mark] + more, self._lines[mark] + more)


class _Columns(NamedTuple):
    header: list[str]
    """The headings as they are shown."""
    headings: Mapping[str, str]
    """The same by column."""
    fields: list[str]
    width: int
    known: list[int]
    attributes: list[tuple[str, int]]
    json: int | None


def rows_of(lines: Iterable[str], wanted: Collection[int]) -> Iterator[list[str]]:
    """Yield the header of a table, and then its rows with these numbers."""
    rest, separator = with_separator(lines, ColumnMap().knows)
    number = -1
    for row in csv.reader(rest, delimiter=separator):
        if row:
            number += 1
            if not number or number in wanted:
                yield row


def _sentence(error: csv.Error) -> str:
    if "field larger than field limit" in str(error):
        return f"a cell has more than {MAX_CELL:,} characters: is a quote not closed before it?"
    return str(error)


def _columns_of(header: list[str] | None, name: str, columns: ColumnMap, has_timezone: bool) -> _Columns:
    if header is None:
        raise CsvError(f"{name}: empty, where a header with at least phone and timezone is needed")
    found = columns.columns_of(header, name)
    required = [] if has_timezone else ["timezone"]
    if JSON_COLUMN not in found:
        required.insert(0, "phone")
    if missing := [one for one in required if one not in found]:
        advice = "; --timezone ZONE gives all clients one" if missing == ["timezone"] else ""
        raise CsvError(f"{name}: column {' and '.join(missing)} is missing{advice}")
    width = len(found)
    shown = {
        column: column if normal(heading) == normal(column) else repr(heading.strip())
        for heading, column in zip(header, found, strict=True)
        if column
    }
    return _Columns(
        header=[shown.get(column, heading) for heading, column in zip(header, found, strict=True)],
        headings=shown,
        fields=_fields_of(found),
        width=width,
        known=[found.index(one) if one in found else width for one in COLUMNS],
        attributes=[(_attribute_of(one), index) for index, one in enumerate(found) if _attribute_of(one)],
        json=found.index(JSON_COLUMN) if JSON_COLUMN in found else None,
    )


def _fields_of(columns: Iterable[str]) -> list[str]:
    windows = {"window_start": "receive_window", "window_end": "receive_window"}
    return list(dict.fromkeys(windows.get(column, column) for column in columns if column))


def _attribute_of(column: str) -> str:
    return column.removeprefix(ATTRIBUTE_PREFIX) if column.startswith(ATTRIBUTE_PREFIX) else ""


def _column_of(field: str | None, key: str | None) -> str:
    if field == "attributes":
        return ATTRIBUTE_PREFIX + key if key else field
    if field == "receive_window":
        return "window_end" if key == "duration" else "window_start"
    return field or ""
