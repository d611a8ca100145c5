"""Clients ↔ their messages. Paths of violations are those of the request."""

from __future__ import annotations

from collections.abc import Collection
from datetime import time

from mailing.v1 import client_pb2
from server.api.encoding.masking import shown_phone
from server.api.encoding.wellknown import duration, span_of, time_message, time_of_day, timestamp
from server.domain.clients import (
    LONGEST_WINDOW,
    Client,
    ClientDefinition,
    OptOut,
    ReceiveWindow,
    normal_tag,
)
from server.domain.masks import parts_of
from server.domain.principals import Scope, caller
from server.domain.validation import Violations

_WINDOW = frozenset({"start", "duration"})


def definition_of(
    message: client_pb2.Client, path: str, violations: Violations, mask: Collection[str] = ()
) -> ClientDefinition:
    """Return the caller's definition of a client, unchecked; report what cannot be converted.

    A `mask` that names parts of the window needs no more than these.
    """
    window = None
    if message.HasField("receive_window"):
        parts = parts_of("receive_window", mask) or _WINDOW
        window = _window_of(message.receive_window, f"{path}.receive_window", violations, parts)
    return ClientDefinition(
        phone=message.phone,
        timezone=message.timezone,
        operator_code=message.operator_code,
        tag=normal_tag(message.tag),
        receive_window=window,
        attributes=dict(message.attributes),
        opted_out=message.opted_out if message.HasField("opted_out") else None,
    )


def _window_of(
    message: client_pb2.ReceiveWindow, path: str, violations: Violations, parts: Collection[str]
) -> ReceiveWindow | None:
    """Return the window; a part that is not among `parts` may be missing, and is then any."""
    start, length = None if "start" in parts else time(), None if "duration" in parts else LONGEST_WINDOW
    if message.HasField("start"):
        start = time_of_day(message.start, f"{path}.start", violations)
    elif "start" in parts:
        violations.add(f"{path}.start", "is required: the local time at which the window opens")
    if message.HasField("duration"):
        length = span_of(message.duration, f"{path}.duration", violations)
    elif "duration" in parts:
        violations.add(f"{path}.duration", "is required: how long the window stays open")
    return ReceiveWindow(start, length) if start is not None and length is not None else None


def client_message(client: Client) -> client_pb2.Client:
    """Return a stored client as its message: a false `opted_out` is left out, so that it is not written back."""
    definition = client.definition
    return client_pb2.Client(
        id=client.id,
        phone=shown_phone(definition.phone),
        operator_code=definition.operator_code,
        tag=definition.tag,
        timezone=definition.timezone,
        receive_window=_window_message(definition.receive_window),
        attributes=definition.attributes,
        opted_out=definition.opted_out or None,
        etag=client.etag,
        create_time=timestamp(client.created_at),
        update_time=timestamp(client.updated_at),
        opt_out=_opt_out_message(client.opt_out),
    )


def updated_client_message(client: Client, written: client_pb2.Client, fields: Collection[str]) -> client_pb2.Client:
    """Return a client that was updated: to a caller without `clients.read` only what they wrote themselves."""
    message = client_message(client)
    if caller().may(Scope.CLIENTS_READ):
        return message
    shown = {"id", "phone", "etag", "create_time", "update_time", *(name.partition(".")[0] for name in fields)}
    for field in message.DESCRIPTOR.fields:
        if field.name not in shown:
            message.ClearField(field.name)  # type: ignore[arg-type]
    for name in [name for name in message.attributes if name not in written.attributes]:
        del message.attributes[name]
    return message


def _opt_out_message(opt_out: OptOut | None) -> client_pb2.OptOut | None:
    if opt_out is None:
        return None
    return client_pb2.OptOut(
        time=timestamp(opt_out.at),
        source=client_pb2.OptOut.Source.ValueType(opt_out.origin),
        word=opt_out.word,
        endpoint=opt_out.endpoint,
    )


def _window_message(window: ReceiveWindow | None) -> client_pb2.ReceiveWindow | None:
    if window is None:
        return None
    return client_pb2.ReceiveWindow(start=time_message(window.start), duration=duration(window.duration))
