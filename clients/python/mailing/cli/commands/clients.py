"""`mailing clients`: import, export, list and add."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mailing import FieldViolation, MailingClient, MailingError, new_client
from mailing.cli.commands.options import (
    Attributes,
    ClientIds,
    Limit,
    OperatorCodes,
    Tags,
    Timezones,
    page_size,
    read_filter,
    read_optional,
    read_pairs,
    read_window,
)
from mailing.cli.failures import CommandError, ExitStatus, first_few
from mailing.cli.files import STANDARD_STREAM, output_file
from mailing.cli.session import Session, command
from mailing.cli.suggestions import SuggestingGroup
from mailing.cli.terminal.client_view import CLIENT_COLUMNS, client_facts, client_row
from mailing.cli.terminal.output import document_of, print_json, print_list, print_message
from mailing.cli.terminal.tables import new_table
from mailing.client_csv import ClientReader, CsvError, open_csv, text_of, write_clients
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import ImportClientsResponse

app = typer.Typer(cls=SuggestingGroup, no_args_is_help=True, help="Manage clients, the recipients of mailings.")

_STEP = 500


@command(app, "import")
def import_file(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE.csv", help="The file; - reads standard input.")],
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", metavar="NAME", help="Such as cp1251; default: UTF-8 or marked UTF-16."),
    ] = None,
    country_code: Annotated[
        str,
        typer.Option("--country-code", metavar="DIGITS", help="Of national numbers: 7 for 8 916 000-00-00."),
    ] = "",
    other_columns: Annotated[
        bool, typer.Option("--other-columns", help="Import unknown columns as attributes: First name as first_name.")
    ] = False,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Save nothing; list the bad rows.")] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Save the good rows; list the bad ones and exit with status 2.")
    ] = False,
) -> None:
    """Create or update clients from a CSV file; all rows are saved or none.

    The separator is a comma, a semicolon or a tab. Phones may be written as in +7 (916) 000-00-00.

    Columns: phone and timezone (required), operator_code, tag, window_start and window_end (HH:MM[:SS]; an
    end at or before the start crosses midnight), opted_out, attributes.NAME. Clients are matched by phone. What has
    no column stays as it is; an empty cell clears. An opt-out is taken back only by `false`.
    """
    started = time.monotonic()
    name = "standard input" if file == STANDARD_STREAM else file
    with _opened(file, encoding) as lines, session.connected() as mailing:
        reader = ClientReader(lines, name, country_code=country_code, other_columns=other_columns)
        options = {"validate_only": validate_only, "skip_invalid": skip_invalid}
        outcome, rows = import_csv(session, mailing, lines, reader, **options)
    seconds = time.monotonic() - started
    if session.json:
        print_json(session, document_of(outcome))
    else:
        _print_outcome(session, outcome, rows, seconds)
    if outcome.skipped:
        _print_errors(session, reader, outcome)
        raise CommandError(f"{outcome.skipped:,} bad rows in {reader.name}", ExitStatus.BAD_INPUT)


def _print_outcome(session: Session, outcome: ImportClientsResponse, rows: int, seconds: float) -> None:
    table = new_table(">rows", ">created", ">updated", ">unchanged", ">seconds", ">rows/s")
    counts = (rows, outcome.created, outcome.updated, outcome.unchanged)
    table.add_row(*(f"{count:,}" for count in counts), f"{seconds:.1f}", f"{rows / max(seconds, 1e-9):,.0f}")
    session.out.print(table)


@command(app, "export")
def export(
    session: Session,
    tag: Tags = [],  # noqa: B006 - typer copies the default
    operator_code: OperatorCodes = [],  # noqa: B006
    timezone: Timezones = [],  # noqa: B006
    attribute: Attributes = [],  # noqa: B006
    client_id: ClientIds = [],  # noqa: B006
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE.csv", help="Output file; - is standard output.")
    ] = STANDARD_STREAM,
) -> None:
    """Write the matching clients as CSV, in the format that import reads. With --json: one document."""
    chosen = read_filter(tag, operator_code, timezone, attribute, client_id)
    with session.connected() as mailing:
        clients = mailing.export_clients(chosen)
        if session.json:
            print_list(session, "clients", clients, 0, (), lambda _: ())
        else:
            with output_file(output) as out:
                write_clients(clients, out)


@command(app, "list")
def list_clients(
    session: Session,
    tag: Tags = [],  # noqa: B006
    operator_code: OperatorCodes = [],  # noqa: B006
    timezone: Timezones = [],  # noqa: B006
    attribute: Attributes = [],  # noqa: B006
    client_id: ClientIds = [],  # noqa: B006
    receiving_now: Annotated[
        bool, typer.Option("--receiving-now", help="Only clients inside their receive window now.")
    ] = False,
    limit: Limit = 50,
) -> None:
    """List clients in the order of their ids."""
    chosen = read_filter(tag, operator_code, timezone, attribute, client_id)
    with session.connected() as mailing:
        clients = mailing.list_clients(chosen, receiving_now=receiving_now, page_size=page_size(limit))
        print_list(session, "clients", clients, limit, CLIENT_COLUMNS, client_row)


@command(app, "add")
def add(
    session: Session,
    phone: Annotated[str, typer.Argument(help="7 to 15 digits with the country code, without '+'.")],
    timezone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="IANA name, as Europe/Moscow.")],
    operator_code: Annotated[str, typer.Option("--operator-code", metavar="CODE", help="Three digits.")] = "",
    tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="A label to choose clients by.")] = "",
    window: Annotated[
        str | None,
        typer.Option(
            "--window", metavar="HH:MM-HH:MM", help="When messages may be sent, in the client's time zone; else always."
        ),
    ] = None,
    attribute: Annotated[list[str], typer.Option("--attribute", metavar="NAME=VALUE", help="Repeat for several.")] = [],  # noqa: B006
    opted_out: Annotated[bool, typer.Option("--opted-out", help="Client has opted out: never send.")] = False,
) -> None:
    """Add one client."""
    client = new_client(
        phone,
        timezone,
        operator_code=operator_code,
        tag=tag,
        window=read_optional("--window", read_window, window),
        attributes=read_pairs("--attribute", attribute),
        opted_out=opted_out,
    )
    with session.connected() as mailing:
        stored = mailing.create_client(client)
    print_message(session, stored, lambda: client_facts(stored))


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
        raise CommandError(str(error), ExitStatus.BAD_INPUT) from None
    except MailingError as error:
        complaints = reader.explain(error.fields)
        if not complaints:
            raise
        bad = int(error.metadata.get("bad_rows", 0))
        advice = f" ({bad:,} bad rows; --validate-only lists them, --skip-invalid saves the others)" if bad > 1 else ""
        raise CommandError(f"{reader.name}, {first_few(complaints)}{advice}", ExitStatus.BAD_INPUT) from None


def _print_errors(session: Session, reader: ClientReader, outcome: ImportClientsResponse) -> None:
    """Print what is wrong with the rows that were left out, a line each."""
    violations = [FieldViolation(f"clients[{one.row}].{one.field}", one.description) for one in outcome.errors]
    for complaint in reader.explain(violations):
        session.err.print(complaint, markup=False, highlight=False, soft_wrap=True)


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


@contextmanager
def _opened(file: str, encoding: str | None) -> Iterator[TextIO]:
    try:
        lines = text_of(sys.stdin.buffer, encoding) if file == STANDARD_STREAM else open_csv(file, encoding)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitStatus.BAD_INPUT) from None
    except LookupError:
        raise CommandError(f"--encoding: {encoding!r} is no encoding, as cp1251 is", ExitStatus.BAD_INPUT) from None
    with lines:
        yield lines
