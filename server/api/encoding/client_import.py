"""The clients of an import → rows, fast.

A client whose fields are all plainly valid becomes a tuple at once. Any other is checked by the
rules of CreateClient, which decide: there is a single set of rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from mailing.v1 import client_pb2
from server.api.encoding.clients import definition_of
from server.domain.clients import (
    MAX_TAG,
    ImportRow,
    check_client,
    completed,
    derived_operator_code,
    import_row,
    valid_operator_code,
    valid_phone,
)
from server.domain.validation import MAX_ATTRIBUTE, MAX_ATTRIBUTES, Violations, valid_name

_DAY = 24 * 3600


def import_rows(clients: Sequence[client_pb2.Client], first: int, zones: Collection[str]) -> list[ImportRow]:
    """Return the rows of `clients`, of which the first one stands at `first` in the stream.

    Raise InvalidFields naming the bad ones by their position in the stream.
    """
    violations = Violations()
    rows = []
    for position, client in enumerate(clients, first):
        row = _plain_row(client, zones)
        rows.append(_checked_row(client, position, zones, violations) if row is None else row)
    violations.check()
    return rows


def _plain_row(client: client_pb2.Client, zones: Collection[str]) -> ImportRow | None:
    """Return the row of a plainly valid client, None where the full check must decide.

    Runs once per client: access to a field is slow, so each is read once.
    """
    phone = client.phone
    timezone = client.timezone
    tag = client.tag
    operator_code = client.operator_code
    if not (valid_phone(phone) and timezone in zones and _plain_tag(tag)):
        return None
    if not operator_code:
        operator_code = derived_operator_code(phone)
    elif not _plain_operator_code(operator_code):
        return None
    attributes = dict(client.attributes) or None
    if attributes and not _plain_attributes(attributes):
        return None
    window = None
    if client.HasField("receive_window"):
        window = _plain_window(client.receive_window.SerializeToString())
        if window is None:
            return None
    return (phone, operator_code, tag, timezone, window, attributes, client.opted_out)


def _checked_row(client: client_pb2.Client, position: int, zones: Collection[str], violations: Violations) -> ImportRow:
    path = f"clients[{position}]"
    definition = definition_of(client, path, violations)
    check_client(definition, zones, path, violations)
    return import_row(completed(definition))


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
