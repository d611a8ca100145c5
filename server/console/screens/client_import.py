"""The import of clients: a file, its columns, a dry run that shows every bad row, and then the import itself.

Nothing is stored before somebody has seen what would be. The file waits on disk between the steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mailing.client_columns import COLUMNS
from mailing.client_csv import CsvError
from mailing.errors import MailingError
from mailing.v1.client_service_pb2 import ImportClientsRequest, ImportClientsResponse
from server.console.forms import Form, change
from server.console.import_file import ENCODINGS, Choices, NotText, Table, guess, head_of, table_of
from server.console.live import Drawings
from server.console.uploads import Upload
from server.console.visit import Console, Visit, begin_visit, redirect

PATIENCE = 600.0
SHOWN = 200
"""Bad rows that the page shows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an import did, or would do; `errors` has (row, field, sentence) of bad rows."""

    answer: ImportClientsResponse
    rows: int
    bad: int
    errors: Sequence[tuple[str, str, str]]


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""

    async def begin(request: Request) -> Response:
        return _first(await begin_visit(console, request))

    async def columns(request: Request) -> Response:
        visit = await begin_visit(console, request)
        choices = Choices(request.query_params.get("encoding", ""), request.query_params.get("country_code", ""))
        return _columns(visit, choices)

    return [
        Route("/clients/import", begin, methods=["GET"]),
        change(console, "/clients/import", upload),
        Route("/clients/import/{upload}", columns, methods=["GET"]),
        change(console, "/clients/import/{upload}/check", check),
        change(console, "/clients/import/{upload}/run", run),
    ]


async def upload(visit: Visit, form: Form) -> Response:
    """Keep the file, if it can be read."""
    file, encoding = form.file("file"), form.get("encoding")
    if file is None or encoding not in ENCODINGS:
        return _first(visit, "none")
    if not visit.may.clients_write:
        return redirect("/clients")
    kept = visit.console.uploads.add(file.file, file.filename or "", visit.who.digest)
    try:
        headings, rows = head_of(kept.path, kept.name, encoding)
    except NotText as error:
        visit.console.uploads.drop(kept.id)
        return _first(visit, "encoding", str(error))
    if not headings or not rows:
        visit.console.uploads.drop(kept.id)
        return _first(visit, "empty")
    return redirect(f"/clients/import/{kept.id}?encoding={encoding}&country_code={form.whole('country_code') or ''}")


async def check(visit: Visit, form: Form) -> Response:
    """Show what the import would do, and store nothing."""
    return await _import(visit, form, rehearse=True)


async def run(visit: Visit, form: Form) -> Response:
    """Import the rows that are good; all of them, or without those that were shown as bad."""
    return await _import(visit, form, rehearse=False)


async def _import(visit: Visit, form: Form, rehearse: bool) -> Response:
    kept = _upload(visit)
    if kept is None:
        return _first(visit, "gone")
    choices = _choices(form)
    try:
        outcome = await imported(visit, kept, choices, rehearse, bool(form.get("skip")))
    except CsvError as error:
        return _columns(visit, choices, str(error))
    except MailingError as error:
        if not error.fields:
            raise
        return _columns(visit, choices, "; ".join(f"{one.field}: {one.description}" for one in error.fields[:20]))
    if not rehearse:
        visit.console.uploads.drop(kept.id)
    context: dict[str, Any] = {"outcome": outcome, "rehearsed": rehearse, "upload": kept, "choices": choices}
    return visit.page("import_outcome.html", shown=SHOWN, live="", part={}, **context)


async def imported(visit: Visit, kept: Upload, choices: Choices, rehearse: bool, skip: bool) -> Outcome:
    """Send a file to the API. Raise CsvError and MailingError; then nothing is stored."""
    table, opened = table_of(kept.path, kept.name, choices)
    with closing(opened):
        requests = _requests(table, rehearse, skip)
        answer = await visit.service.upload(visit.service.clients.ImportClients, requests, visit.who, PATIENCE)
    found = [(f"{table.place(one.row)}", one.field, one.description) for one in answer.errors]
    found += [_split(complaint) for complaint in table.complaints]
    found.sort(key=lambda one: int(one[0] or 0))
    return Outcome(answer, table.rows, answer.skipped + table.bad, found)


async def _requests(table: Table, rehearse: bool, skip: bool) -> AsyncIterator[ImportClientsRequest]:
    """Yield the stream of an import. Without `skip` a row that is no client ends it, before anything is stored."""
    first = True
    async for batch in table.batches():
        request = ImportClientsRequest(clients=batch)
        if first:
            request.update_mask.CopyFrom(FieldMask(paths=table.fields))
            request.validate_only, request.skip_invalid = rehearse, skip
            first = False
        yield request
    if table.bad and not (rehearse or skip):
        raise CsvError("\n".join(table.complaints[:20]), table.complaints, table.bad)


def _split(complaint: str) -> tuple[str, str, str]:
    """Return row, column and sentence of a complaint of the SDK, `row 5 (line 6), column phone: …`."""
    place, _, sentence = complaint.partition(": ")
    row = place.removeprefix("row ").split(" ")[0]
    return (row if row.isdecimal() else "", place.partition("column ")[2], sentence or complaint)


def _choices(form: Form) -> Choices:
    count = form.whole("columns")
    columns = [form.get(f"column-{index}") for index in range(min(count, 300))]
    encoding = form.get("encoding") if form.get("encoding") in ENCODINGS else ""
    return Choices(encoding, form.get("country_code"), form.get("timezone"), columns)


def _upload(visit: Visit) -> Upload | None:
    return visit.console.uploads.get(visit.request.path_params["upload"], visit.who.digest)


def _first(visit: Visit, problem: str = "", sentence: str = "") -> Response:
    """Show the first step, with what is wrong: one of the page's problems, or the SDK's sentence about the file."""
    status = 422 if problem else 200
    return visit.page("import_file.html", status, problem=problem, sentence=sentence, live="", part={})


def _columns(visit: Visit, choices: Choices, problem: str = "") -> Response:
    kept = _upload(visit)
    if kept is None:
        return _first(visit, "gone")
    try:
        headings, rows = head_of(kept.path, kept.name, choices.encoding)
    except NotText as error:
        return _first(visit, "encoding", str(error))
    if not choices.columns:
        choices = replace(choices, columns=[guess(one) for one in headings])
    context: dict[str, Any] = {
        "upload": kept,
        "choices": choices,
        "headings": headings,
        "rows": rows,
        "columns": COLUMNS,
    }
    return visit.page("import_columns.html", 422 if problem else 200, problem=problem, live="", part={}, **context)
