"""The reference of the API over HTTP, drawn from openapi.json: for everybody who reaches the console, signed in or not.

In English in every language of the console, as the comments of the protos are, from which all of it comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from server.console import render
from server.console.live import Drawings
from server.console.permissions import May
from server.console.viewer import Viewer, viewer_of
from server.console.visit import Console, Visit

DESCRIPTION = Path(render.HERE, "openapi.json")


class Value(NamedTuple):
    """A parameter, or a field of a message: its name, its type in words, the message or enum behind it."""

    name: str
    kind: str
    reference: str
    about: str
    needed: bool


class Operation(NamedTuple):
    """One way to call a method."""

    name: str
    verb: str
    path: str
    summary: str
    about: str
    parameters: Sequence[Value]
    body: Sequence[Value]
    example: str
    answer: Value
    streams: bool


def routes(console: Console, drawings: Drawings) -> Sequence[Route]:
    """Return the routes of this screen."""

    async def page(request: Request) -> Response:
        viewer = viewer_of(request.cookies, request.headers.get("accept-language", ""))
        session = console.sessions.read(request.cookies)
        visit = Visit(console, request, viewer, session, May())
        return visit.page("reference.html", live="", part={}, reference=drawn())

    return [
        Route("/docs/", page),
        Route("/docs", lambda _: RedirectResponse("/docs/", 308)),
        Route("/docs/openapi.json", lambda _: FileResponse(DESCRIPTION, media_type="application/json")),
    ]


@cache
def drawn() -> Markup:
    """Return the reference, which is the same for all."""
    document = json.loads(DESCRIPTION.read_bytes())
    schemas = document["components"]["schemas"]
    shown = {name: (one, list(_fields(one))) for name, one in schemas.items()}
    context = {"about": document["info"]["description"], "groups": _groups(document), "schemas": shown}
    return render.fragment(Viewer("en", "UTC", "auto"), "reference", context)


def _groups(document: Mapping[str, Any]) -> Mapping[str, tuple[str, Sequence[Operation]]]:
    """Return the operations by service, each service with its description."""
    schemas = document["components"]["schemas"]
    found: dict[str, tuple[str, list[Operation]]] = {tag["name"]: (tag["description"], []) for tag in document["tags"]}
    for path, verbs in document["paths"].items():
        for verb, one in verbs.items():
            found[one["tags"][0]][1].append(_operation(path, verb.upper(), one, schemas))
    return found


def _operation(path: str, verb: str, one: Mapping[str, Any], schemas: Mapping[str, Any]) -> Operation:
    content = one.get("requestBody", {}).get("content", {}).get("application/json", {})
    ((media, answer),) = one["responses"]["200"]["content"].items()
    streams = media != "application/json"
    schema = answer["schema"]["properties"]["result"] if streams else answer["schema"]
    return Operation(
        name=one["operationId"],
        verb=verb,
        path=path,
        summary=one["summary"],
        about=one["description"],
        parameters=[
            _value(it["name"], it["schema"], it["description"], it["in"] == "path") for it in one["parameters"]
        ],
        body=list(_fields(_flat(content.get("schema", {}), schemas))),
        example=json.dumps(content["example"], ensure_ascii=False) if "example" in content else "",
        answer=_value("", schema, "", needed=False),
        streams=streams,
    )


def _flat(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to and what it is made of in one."""
    parts = [dict(schema), *(_flat(part, schemas) for part in schema.get("allOf", ()))]
    if "$ref" in schema:
        parts.append(schemas[_name_in(schema["$ref"])])
    return {
        "properties": {name: value for part in parts for name, value in part.get("properties", {}).items()},
        "required": [name for part in parts for name in part.get("required", ())],
    }


def _fields(schema: Mapping[str, Any]) -> Iterator[Value]:
    for name, one in schema.get("properties", {}).items():
        yield _value(name, one, one.get("description", ""), name in schema.get("required", ()))


def _value(name: str, schema: Mapping[str, Any], about: str, needed: bool) -> Value:
    kind, reference = _kind(schema)
    return Value(name, kind, reference, about, needed)


def _kind(schema: Mapping[str, Any]) -> tuple[str, str]:
    """Return a type in words, and the name of the message or enum that it is about."""
    if "$ref" in schema:
        return "", _name_in(schema["$ref"])
    if "allOf" in schema:
        return _kind(schema["allOf"][0])
    for words, key in (("list of", "items"), ("map of texts to", "additionalProperties")):
        if key in schema:
            kind, reference = _kind(schema[key])
            return f"{words} {kind}".strip(), reference
    names = {"int64": "text with digits", "date-time": "time", "int32": "integer"}
    return names.get(schema.get("format", ""), schema.get("type", "object").replace("string", "text")), ""


def _name_in(reference: str) -> str:
    return urlsplit(reference).fragment.rpartition("/")[2]
