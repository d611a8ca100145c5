"""A table of clients as somebody exported it: its headings, which column is what, and its rows as clients.

Reading, with its rules and its words, is the SDK's; this only says which of its columns a column is.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mailing.client_columns import COLUMNS, ColumnMap, attribute_column, own_column
from mailing.client_csv import ClientReader, CsvError
from mailing.csv_source import HEAD, check_kind, text_of, with_separator
from mailing.phones import Country
from mailing.v1.client_pb2 import Client

ATTRIBUTE = "attribute"
"""The choice that makes a column an attribute named by its heading."""

SHOWN_ROWS = 5
ENCODINGS = ("", "cp1251", "utf-16-le", "iso-8859-1")
_BATCH = 500


class NotText(Exception):
    """The file is not in the encoding that was chosen; `str()` says what it is instead, '' if that is not known."""


@dataclass(frozen=True, slots=True)
class Choices:
    """How a file is read: encoding, country code of national numbers, a zone for files without one, and the columns.

    `columns` has, for each column of the file, one of the SDK's names, ATTRIBUTE, or '' to leave it out.
    """

    encoding: str = ""
    country_code: str = ""
    timezone: str = ""
    columns: Sequence[str] = ()


@dataclass(slots=True)
class Table:
    """The clients of a file, read once. `complaints` says what is wrong with rows that are none, `bad` counts them."""

    name: str
    lines: Iterator[str]
    choices: Choices
    complaints: list[str] = field(default_factory=list)
    bad: int = 0
    rows: int = 0
    places: array[int] = field(default_factory=lambda: array("q"))
    fields: list[str] = field(default_factory=list)

    async def batches(self) -> AsyncIterator[list[Client]]:
        """Yield the clients, 500 at a time. Raise CsvError for a header that cannot be read."""
        try:
            country = Country(self.choices.country_code) if self.choices.country_code else None
        except ValueError as error:
            raise CsvError(f"country code: {error}") from None
        reader = ClientReader(self.lines, self.name, country=country, timezone=self.choices.timezone)
        self.fields = reader.fields()
        clients = self._read(reader)
        while batch := list(islice(clients, _BATCH)):
            yield batch

    def place(self, index: int) -> int:
        """Return the row in the file, from 1, of the client at this place in the stream."""
        return self.places[index] if 0 <= index < len(self.places) else 0

    def _read(self, reader: ClientReader) -> Iterator[Client]:
        clients = iter(reader)
        try:
            for client in clients:
                self.places.append(reader.rows)
                yield client
        except CsvError as error:
            if not error.bad_rows:
                raise
            self.complaints, self.bad = list(error.complaints), error.bad_rows
        self.rows = reader.rows


def head_of(path: Path, name: str, encoding: str) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the first rows of a file. Raise NotText; no headings mean an empty file."""
    with path.open("rb") as stream:
        try:
            check_kind(stream.peek(HEAD)[:HEAD], name)
            text = text_of(stream, encoding or None)
            rows = list(islice(_rows(text), SHOWN_ROWS + 1))
            # The rest, too: nobody should map columns of a file that cannot be read to its end.
            while text.read(1 << 20):
                pass
        except (UnicodeError, csv.Error) as error:
            raise NotText from error
        except CsvError as error:
            raise NotText(str(error)) from error
    return (rows[0], rows[1:]) if rows else ([], [])


def guess(heading: str) -> str:
    """Return what a column most likely is, by its heading."""
    found = own_column(heading)
    if found in COLUMNS:
        return str(found)
    return ATTRIBUTE if heading.strip() else ""


def table_of(path: Path, name: str, choices: Choices) -> tuple[Table, io.TextIOWrapper]:
    """Return the clients of a file, and the open file, to be closed when they were read."""
    text = text_of(path.open("rb"), choices.encoding or None)
    return Table(name, _mapped(text, choices), choices), text  # type: ignore[return-value]


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    rest, separator = with_separator(lines, ColumnMap().knows)
    return (row for row in csv.reader(rest, delimiter=separator) if row)


def _mapped(lines: Iterator[str], choices: Choices) -> Iterator[str]:
    """Yield the lines of the same table with the chosen columns only, under the SDK's names."""
    rest, separator = with_separator(lines, ColumnMap().knows)
    reader = csv.reader(rest, delimiter=separator)
    header = next((row for row in reader if row), [])
    chosen = [(index, name) for index, one in enumerate(header) if (name := _name(one, index, choices))]
    yield _line([name for _, name in chosen])
    width = len(header)
    for row in reader:
        if not row:
            yield "\r\n"
        elif len(row) != width:
            # Of another width than the header: the SDK says so, with the row.
            yield _line([*row, *[""] * (len(chosen) + 1)][: max(1, len(chosen) + len(row) - width)])
        else:
            yield _line([row[index] for index, _ in chosen])


def _name(heading: str, index: int, choices: Choices) -> str:
    choice = choices.columns[index] if index < len(choices.columns) else ""
    return (attribute_column(heading) or "") if choice == ATTRIBUTE else choice if choice in COLUMNS else ""


def _line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
