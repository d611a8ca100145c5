"""The clients of an import → rows, fast; its options and its answer.

A client whose fields are all plainly valid becomes a tuple at once. Any other is checked by the
rules of CreateClient, which decide: there is a single set of rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from mailing.v1 import client_pb2, client_service_pb2
from server.api.encoding.clients import definition_of
from server.domain.client_import import (
    ImportCounts,
    ImportMask,
    ImportOptions,
    ImportRow,
    RowErrors,
    Spoken,
    import_mask,
    import_row,
)
from server.domain.clients import (
    CLIENT_FIELDS,
    MAX_TAG,
    check_client,
    derived_operator_code,
    normal_tag,
    valid_operator_code,
    valid_phone,
)
from server.domain.validation import MAX_ATTRIBUTE, MAX_ATTRIBUTES, Violations, valid_name

_DAY = 24 * 3600

# Plain numbers: a member of an enum takes ten times as long to compute with.
_OPERATOR_CODE, _TAG, _TIMEZONE, _WINDOW, _ATTRIBUTES = map(
    int, (Spoken.OPERATOR_CODE, Spoken.TAG, Spoken.TIMEZONE, Spoken.WINDOW, Spoken.ATTRIBUTES)
)


def import_rows(
    clients: Sequence[client_pb2.Client], first: int, zones: Collection[str], mask: ImportMask, errors: RowErrors
) -> list[ImportRow | None]:
    """Return the rows of `clients`, of which the first one stands at `first` in the stream.

    A bad one is None, and reported to `errors` by its position in the stream.
    """
    rows: list[ImportRow | None] = []
    for position, client in enumerate(clients, first):
        row = _plain_row(client, zones, mask.spoken)
        rows.append(row or _checked_row(client, position, zones, mask, errors))
    return rows


def _plain_row(client: client_pb2.Client, zones: Collection[str], spoken: int | None) -> ImportRow | None:
    """Return the row of a plainly valid client, None where the full check must decide.

    Runs once per client: access to a field is slow, so each is read once.
    """
    phone = client.phone
    timezone = client.timezone
    tag = _normal_tag(client.tag)
    operator_code = client.operator_code
    speaks = _TAG if tag else 0
    if timezone:
        if timezone not in zones:
            return None
        speaks |= _TIMEZONE
    elif spoken is not None and spoken & _TIMEZONE:
        return None
    if not (valid_phone(phone) and _plain_tag(tag)):
        return None
    if not operator_code:
        operator_code = derived_operator_code(phone)
    elif _plain_operator_code(operator_code):
        speaks |= _OPERATOR_CODE
    else:
        return None
    attributes = dict(client.attributes) or None
    if attributes:
        if not _plain_attributes(attributes):
            return None
        speaks |= _ATTRIBUTES
    window = None
    if client.HasField("receive_window"):
        window = _plain_window(client.receive_window.SerializeToString())
        if window is None:
            return None
        speaks |= _WINDOW
    opted_out = client.opted_out if client.HasField("opted_out") else None
    return (
        phone,
        operator_code,
        tag,
        timezone,
        window,
        attributes,
        opted_out,
        speaks if spoken is None else spoken,
    )


def _checked_row(
    client: client_pb2.Client, position: int, zones: Collection[str], mask: ImportMask, errors: RowErrors
) -> ImportRow | None:
    violations = Violations()
    definition = definition_of(client, "", violations)
    # A row that does not speak of the zone may do without: its phone may be known. The merge looks.
    silent = not (definition.timezone or (mask.spoken or 0) & Spoken.TIMEZONE)
    fields = frozenset(CLIENT_FIELDS) - ({"timezone"} if silent else set())
    check_client(definition, zones, "", violations, fields)
    found = [replace(one, path=one.path.removeprefix(".")) for one in violations.found]
    errors.add(position, found)
    return None if found else import_row(definition, mask)


@lru_cache(maxsize=4096)
def _normal_tag(tag: str) -> str:
    return normal_tag(tag)


@lru_cache(maxsize=4096)
def _plain_tag(tag: str) -> bool:
    return len(tag) <= MAX_TAG and "\0" not in tag


def _plain_attributes(attributes: Mapping[str, str]) -> bool:
    if len(attributes) > MAX_ATTRIBUTES:
        return False
    for name, value in attributes.items():
        if len(value) > MAX_ATTRIBUTE or "\0" in value or not _plain_name(name):
            return False
    return True


@lru_cache(maxsize=4096)
def _plain_name(name: str) -> bool:
    return valid_name(name) is not None


@lru_cache(maxsize=1000)
def _plain_operator_code(code: str) -> bool:
    return valid_operator_code(code) is not None


@lru_cache(maxsize=4096)
def _plain_window(serialized: bytes) -> tuple[int, int] | None:
    """Return start and length in seconds; few different windows serve most clients."""
    window = client_pb2.ReceiveWindow.FromString(serialized)
    start, length = window.start, window.duration
    if not (window.HasField("start") and 0 <= start.hours < 24 and 0 <= start.minutes < 60 and 0 <= start.seconds < 60):
        return None
    if not 0 < length.seconds <= _DAY or length.nanos:
        return None
    return start.hours * 3600 + start.minutes * 60 + start.seconds, length.seconds


def import_options(request: client_service_pb2.ImportClientsRequest) -> ImportOptions:
    """Return how an import is done, by the first message of its stream. Raise InvalidFields."""
    violations = Violations()
    mask = import_mask(request.update_mask.paths, violations)
    violations.check()
    return ImportOptions(mask, request.validate_only, request.skip_invalid)


def check_same_options(
    request: client_service_pb2.ImportClientsRequest, first: client_service_pb2.ImportClientsRequest
) -> None:
    """Raise InvalidFields for options that differ from those of the stream's first message; all may be absent."""
    violations = Violations()
    for field, value in request.ListFields():
        if field.name != "clients" and value != getattr(first, field.name):
            violations.add(field.name, "must be that of the first message of the stream, or absent")
    violations.check()


def import_response(
    counts: ImportCounts, errors: RowErrors, options: ImportOptions
) -> client_service_pb2.ImportClientsResponse:
    """Return what an import did, or would do."""
    response = client_service_pb2.ImportClientsResponse(
        created=counts.created, updated=counts.updated, unchanged=counts.unchanged
    )
    if options.returns_errors:
        response.skipped = errors.rows
        for row, field, sentence in errors.kept:
            response.errors.add(row=row, field=field, description=sentence)
    return response
