"""`mailing clients import`: contact files as they are, all rows saved or none, every bad row reported."""

from __future__ import annotations

import csv
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TextIO

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mailing import FieldViolation, MailingClient, MailingError
from mailing.cli.commands.options import read_optional
from mailing.cli.failures import CommandError, ExitStatus, first_few
from mailing.cli.files import STANDARD_STREAM, output_file
from mailing.cli.session import Session
from mailing.cli.terminal.output import document_of, print_json, print_table
from mailing.cli.terminal.tables import new_table
from mailing.cli.terminal.words import counted
from mailing.client_columns import PRESETS, ColumnMap
from mailing.client_csv import MAX_COMPLAINTS, ClientReader, CsvError, open_csv, rows_of, text_of
from mailing.csv_source import SEPARATORS
from mailing.phones import Country
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import ImportClientsResponse

_STEP = 500
_ENCODINGS = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "cp1251": "windows-1251"}
_FORMAT = "How the file is written"


@dataclass(slots=True)
class FileFormat:
    """The options that say how a file is written."""

    map: Annotated[
        list[str],
        typer.Option(
            "--map",
            metavar="HEADING=COLUMN",
            help="What a column means: 'Mobile=phone', 'City=attributes.city'; 'Notes=' leaves one out. Repeatable.",
            rich_help_panel=_FORMAT,
        ),
    ] = field(default_factory=list)
    exported_by: Annotated[
        str,
        typer.Option("--from", metavar="NAME", help=f"An export of {', '.join(PRESETS)}.", rich_help_panel=_FORMAT),
    ] = ""
    other_columns: Annotated[
        bool,
        typer.Option(
            "--other-columns",
            help="Import unknown columns as attributes: First name as first_name.",
            rich_help_panel=_FORMAT,
        ),
    ] = False
    country: Annotated[
        str | None,
        typer.Option(
            "--country", metavar="COUNTRY", help="Of national numbers: RU for 8 916 123-45-67.", rich_help_panel=_FORMAT
        ),
    ] = None
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", metavar="ZONE", help="For clients without one in the file.", rich_help_panel=_FORMAT
        ),
    ] = ""
    encoding: Annotated[
        str | None,
        typer.Option(
            "--encoding",
            metavar="NAME",
            help="Such as cp1252; default: UTF-8, UTF-16 or windows-1251, as found.",
            rich_help_panel=_FORMAT,
        ),
    ] = None

    def reader(self, lines: TextIO, name: str, skip_bad: bool) -> ClientReader:
        """Return the reader of a file; raise a usage error that names the option."""
        try:
            columns = ColumnMap(_mappings(self.map), self.exported_by, other_columns=self.other_columns)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=["--map", "--from"]) from None
        country = read_optional("--country", Country, self.country)
        return ClientReader(lines, name, columns, country=country, timezone=self.timezone, skip_bad=skip_bad)


def import_file(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE.csv", help="The file; - reads standard input.")],
    form: FileFormat,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Save nothing; list the bad rows.")] = False,
    skip_invalid: Annotated[
        str | None,
        typer.Option(
            "--skip-invalid", metavar="REJECTS.csv", help="Save the good rows, and write the bad ones to this file."
        ),
    ] = None,
) -> None:
    """Create or update clients from a CSV file; all rows are saved or none.

    Encoding and separator (comma, semicolon, tab) are found. Phones may be written as in +7 (916) 123-45-67.

    Columns: phone and timezone (required), operator_code, tag, window_start and window_end (HH:MM[:SS]; an
    end at or before the start crosses midnight), opted_out, attributes.NAME. Clients are matched by phone. What has
    no column stays as it is; an empty cell clears. An opt-out is taken back only by `false`.
    """
    if skip_invalid and (file == STANDARD_STREAM or dry_run):
        raise typer.BadParameter("needs a file that is saved", param_hint="--skip-invalid")
    started = time.monotonic()
    name = "standard input" if file == STANDARD_STREAM else file
    with opened(file, form.encoding) as lines, session.connected() as mailing:
        reader = form.reader(lines, name, skip_bad=dry_run or skip_invalid is not None)
        options = {"validate_only": dry_run, "skip_invalid": skip_invalid is not None}
        outcome, rows = import_csv(session, mailing, lines, reader, **options)
        _tell_format(session, reader, lines)
    bad = reader.bad | reader.explain(_violations(outcome))
    if skip_invalid and bad:
        _write_rejects(skip_invalid, file, form.encoding, bad)
    if session.json:
        print_json(session, document_of(outcome))
    else:
        _print_outcome(session, outcome, rows, time.monotonic() - started)
    if count := outcome.skipped + reader.bad_rows:
        _print_bad(session, bad, count)
        end = "nothing was saved" if dry_run else f"written to {skip_invalid}, with the reasons"
        raise CommandError(f"{counted(count, 'bad row')} in {name}: {end}", ExitStatus.BAD_INPUT)
    if dry_run and not session.json:
        session.err.print("No bad row; nothing was saved.")


def import_csv(
    session: Session, mailing: MailingClient, lines: TextIO, reader: ClientReader, **options: Any
) -> tuple[ImportClientsResponse, int]:
    """Import an open CSV file, with a progress bar on a terminal; return the outcome and the number of rows.

    `options` are those of `MailingClient.import_clients`. Raise CommandError, naming row and column, for
    what the file or the service finds wrong.
    """
    try:
        with _progress(session, lines) as show:
            return mailing.import_clients(_counted(reader, show), reader.fields(), **options), reader.rows
    except CsvError as error:
        raise CommandError(f"{error}{_advice(error.bad_rows)}", ExitStatus.BAD_INPUT) from None
    except MailingError as error:
        complaints = reader.explain(error.fields)
        if not complaints:
            raise
        advice = _advice(int(error.metadata.get("bad_rows", 0)))
        sentence = f"{reader.name}, {first_few([*complaints.values()])}{advice}"
        raise CommandError(sentence, ExitStatus.BAD_INPUT) from None


@contextmanager
def opened(file: str, encoding: str | None) -> Iterator[TextIO]:
    """Lend a file, or standard input, as text. Raise CommandError."""
    try:
        lines = text_of(sys.stdin.buffer, encoding) if file == STANDARD_STREAM else open_csv(file, encoding)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitStatus.BAD_INPUT) from None
    except CsvError as error:
        raise CommandError(str(error), ExitStatus.BAD_INPUT) from None
    except LookupError:
        raise CommandError(f"--encoding: {encoding!r} is no encoding, as cp1251 is", ExitStatus.BAD_INPUT) from None
    with lines:
        yield lines


def _mappings(texts: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        # The last one: a heading may have any characters, and a column has no sign.
        heading, sign, column = text.rpartition("=")
        if not (heading and sign):
            raise ValueError(f"{text!r} is not HEADING=COLUMN")
        found[heading] = column.strip()
    return found


def _advice(bad_rows: int) -> str:
    if bad_rows < 2:
        return ""
    return f" ({bad_rows:,} bad rows; --dry-run lists them, --skip-invalid REJECTS.csv saves the others)"


def _violations(outcome: ImportClientsResponse) -> list[FieldViolation]:
    return [FieldViolation(f"clients[{one.row}].{one.field}", one.description) for one in outcome.errors]


def _tell_format(session: Session, reader: ClientReader, lines: TextIO) -> None:
    """Tell what was found in the file."""
    if not session.json:
        encoding = _ENCODINGS.get(lines.encoding, lines.encoding)
        session.err.print(f"{reader.name}: {encoding}, separated by {SEPARATORS[reader.separator]}")


def _print_outcome(session: Session, outcome: ImportClientsResponse, rows: int, seconds: float) -> None:
    table = new_table(">rows", ">created", ">updated", ">unchanged", ">seconds", ">rows/s")
    counts = (rows, outcome.created, outcome.updated, outcome.unchanged)
    table.add_row(*(f"{count:,}" for count in counts), f"{seconds:.1f}", f"{rows / max(seconds, 1e-9):,.0f}")
    print_table(session, table)


def _print_bad(session: Session, bad: Mapping[int, str], count: int) -> None:
    """Print what is wrong with the first bad rows, a line each."""
    for row in sorted(bad)[:MAX_COMPLAINTS]:
        session.err.print(bad[row], markup=False, highlight=False, soft_wrap=True)
    if count > min(len(bad), MAX_COMPLAINTS):
        session.err.print(f"and {count - min(len(bad), MAX_COMPLAINTS):,} more bad rows")


def _write_rejects(rejects: str, file: str, encoding: str | None, bad: Mapping[int, str]) -> None:
    """Write the bad rows as they are in the file, with what is wrong with them in a last column."""
    with output_file(rejects) as out, opened(file, encoding) as lines:
        writer = csv.writer(out, lineterminator="\n")
        header, *rows = rows_of(lines, bad)
        writer.writerow([*header, "error"])
        for row, number in zip(rows, sorted(bad), strict=True):
            writer.writerow([*row, bad[number]])


def _counted(clients: Iterable[Client], show: Callable[[int], None]) -> Iterator[Client]:
    for count, client in enumerate(clients, 1):
        if not count % _STEP:
            show(count)
        yield client


@contextmanager
def _progress(session: Session, lines: TextIO) -> Iterator[Callable[[int], None]]:
    """Show how much of the file was read; for a pipe, which has no size, the number of rows alone."""
    if not session.err.is_terminal:
        yield lambda rows: None
        return
    size = _size(lines)
    columns = (TextColumn("importing"), BarColumn(), TextColumn("{task.fields[rows]:,} rows"), TimeRemainingColumn())
    with Progress(*columns, console=session.err, transient=True) as progress:
        task = progress.add_task("", total=size, rows=0)
        yield lambda rows: progress.update(task, completed=lines.buffer.tell() if size else 0, rows=rows)


def _size(lines: TextIO) -> int | None:
    status = os.fstat(lines.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
