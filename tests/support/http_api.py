"""Calls of the API by HTTP, made from the same requests as calls by gRPC, and what of their answers can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from server.console.http_api.bindings import Binding

CHANGING = ("Time", "Token", "etag", "duration", "Seconds", "since", "time", "id", "messageId")
"""Ends of the names of fields that differ between two services."""


class HttpCall(NamedTuple):
    """A request by HTTP."""

    verb: str
    path: str
    query: list[tuple[str, Any]]
    body: Any

    async def send(self, client: httpx.AsyncClient, **headers: str) -> httpx.Response:
        return await client.request(
            self.verb,
            self.path,
            params=self.query or None,
            headers=headers,
            **({} if self.body is None else {"json": self.body}),
        )


def request_message(binding: Binding, document: Mapping[str, Any]) -> Message:
    """Return the message of a request in JSON."""
    return ParseDict(dict(document), binding.request())


def http_call(binding: Binding, request: Message) -> HttpCall | None:
    """Return the same request by HTTP; None where this path cannot say it."""
    document = MessageToDict(request, preserving_proto_field_name=True)
    path = binding.template
    for field in binding.fields:
        value = _take(document, field)
        if value is None:
            return None
        path = path.replace(f"{{{field}}}", str(value))
    body = document if binding.body == "*" else document.pop(binding.body, {}) if binding.body else None
    query = [] if binding.body == "*" else list(_flat(document))
    known = binding.in_query()
    return HttpCall(binding.verb, path, query, body) if all(name in known for name, _ in query) else None


def _take(document: dict[str, Any], path: str) -> Any:
    *outer, last = path.split(".")
    for name in outer:
        document = document.get(name, {})
    return document.pop(last, None)


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            for one in value if isinstance(value, list) else [value]:
                yield f"{prefix}{name}", json.dumps(one) if isinstance(one, bool) else str(one)


def steady(document: Any) -> Any:
    """Return a JSON document with what differs from service to service replaced by its presence."""
    if isinstance(document, dict):
        return {
            name: True if name.endswith(CHANGING) and not isinstance(value, dict | list) else steady(value)
            for name, value in document.items()
        }
    return [steady(one) for one in document] if isinstance(document, list) else document
