"""Makes the request of a call from the path, the query and the JSON body of an HTTP request.

JSON as protobuf defines it, in either spelling of names. Update masks are read here: protobuf's own reading would turn
`attributes.firstName` into the name of another attribute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from server.console.http_api.bindings import Binding, field_at

_MOST_PARAMETERS = 2000
_NAMED = re.compile(r"Failed to parse (\w+) field: ")
_UNKNOWN = re.compile(r'has no field named "([^"]*)" at "([^"]*)"')
_AT = re.compile(r" at \w+\.?([\w.\[\]]*)$")


class BadField(Exception):
    """A value cannot be used: `field` is its path, empty for the request as a whole; `sentence` is for people."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{field}: {sentence}" if field else sentence)
        self.field = field
        self.sentence = sentence


def request_of(binding: Binding, in_path: Mapping[str, str], query: str, body: bytes) -> Message:
    """Return the request of a call. Raise BadField."""
    document = _body(binding, body)
    _add_query(binding, query, document)
    mask = _mask(binding, document)
    request = binding.request()
    try:
        ParseDict(document, request, max_recursion_depth=64)
    except ParseError as error:
        _refuse(str(error))
    except (TypeError, ValueError, AttributeError, RecursionError):
        raise BadField("", "The body is not of the method's shape.") from None
    if mask is not None:
        request.update_mask.CopyFrom(mask)  # type: ignore[attr-defined]
    for path, text in in_path.items():
        _place(request, path, text)
    return request


def _body(binding: Binding, body: bytes) -> dict[str, Any]:
    """Return the body as the document of the whole request."""
    if not binding.body:
        if body.strip():
            raise BadField("", f"A {binding.verb} of this path takes no body.")
        return {}
    content = _json(body) if body.strip() else {}
    if not isinstance(content, dict):
        raise BadField("", "The body should be a JSON object.")
    return content if binding.body == "*" else {binding.body: content}


def _json(body: bytes) -> object:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BadField("", "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise BadField("", f"The body is not JSON: {error.msg.lower()} at byte {error.pos}.") from None
    except (ValueError, RecursionError):
        raise BadField("", "The body has a number or a depth that JSON here does not go to.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadField(twice[:100], "stands twice in one object.")
    return made


def _no_constant(name: str) -> NoReturn:
    raise BadField("", f"The body is not JSON: {name} is no number of it.")


def _add_query(binding: Binding, query: str, document: dict[str, Any]) -> None:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        raise BadField("", f"The query is not UTF-8, or has more than {_MOST_PARAMETERS:,} parameters.") from None
    known = {spelling: path for path in binding.in_query() for spelling in (path, camel_case(path))}
    for name, text in pairs:
        _check_phone(name, text)
        if name not in known:
            raise BadField(name[:100], f"is no parameter of this path.{_hint(known)}")
        _add(document, known[name], field_at(binding.method.input_type, known[name]), text)


def _hint(known: Mapping[str, str]) -> str:
    names = sorted(set(known.values()))
    return f" It has {', '.join(names[:20])}{' and more' if len(names) > 20 else ''}." if names else " It has none."


def _check_phone(name: str, text: str) -> None:
    """Refuse a phone in an address, by its name or within a filter."""
    if "phone" in name.lower() or (name.lower().replace("_", "") == "filtertext" and "phone" in text.lower()):
        raise BadField(name[:100], "A phone does not belong into an address: use the POST form, with it in the body.")


def _add(document: dict[str, Any], path: str, field: FieldDescriptor, text: str) -> None:
    *outer, last = path.split(".")
    for name in outer:
        document = document.setdefault(name, {})
    value = _value(path, field, text)
    if field.is_repeated:
        document.setdefault(last, []).append(value)
    elif last in document:
        raise BadField(path, "stands twice.")
    else:
        document[last] = value


def _value(path: str, field: FieldDescriptor, text: str) -> object:
    if field.cpp_type != FieldDescriptor.CPPTYPE_BOOL:
        return text
    if text.lower() not in ("true", "false", ""):
        raise BadField(path, "should be true or false.")
    return text.lower() != "false"


def _mask(binding: Binding, document: dict[str, Any]) -> FieldMask | None:
    """Take the update mask out of the document and return it."""
    found = [document.pop(name) for name in ("update_mask", "updateMask") if name in document]
    if not found or "update_mask" not in binding.method.input_type.fields_by_name:
        return None
    if len(found) > 1 or not isinstance(found[0], str):
        raise BadField("update_mask", "should be one text with paths separated by commas.")
    resource = binding.body if binding.body != "*" else _resource(binding.method.input_type)
    message = binding.method.input_type.fields_by_name[resource].message_type
    return FieldMask(paths=[_snake_path(message, path.strip()) for path in found[0].split(",") if path.strip()])


def _resource(request: Descriptor) -> str:
    """Return the name of the field with what an update changes: the first one that is a message."""
    return next(field.name for field in request.fields if field.message_type and field.name != "update_mask")


def _snake_path(message: Descriptor | None, path: str) -> str:
    """Return a path with fields as the protos write them; behind a map stand names of callers."""
    name, dot, rest = path.partition(".")
    field = (message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)) if message else None
    if field is None:
        return path
    inner = field.message_type
    below = None if inner is None or inner.GetOptions().map_entry else inner
    return f"{field.name}{dot}{_snake_path(below, rest)}"


def _place(request: Message, path: str, text: str) -> None:
    """Set a field from the path. A body that says something else is refused."""
    *outer, last = path.split(".")
    for name in outer:
        request = getattr(request, name)
    is_text = request.DESCRIPTOR.fields_by_name[last].cpp_type == FieldDescriptor.CPPTYPE_STRING
    value, given = text if is_text else int(text), getattr(request, last)
    if given and given != value:
        raise BadField(path, "differs between the path and the body.")
    try:
        setattr(request, last, value)
    except ValueError:
        raise BadField(path, "is larger than any id.") from None


def _refuse(text: str) -> NoReturn:
    """Raise BadField with the path and the sentence out of what protobuf says."""
    if unknown := _UNKNOWN.search(text):
        inner = snake_case(unknown[2].partition(".")[2])
        raise BadField(".".join(filter(None, (inner, unknown[1][:100]))), "is no field of this request.")
    reason = _NAMED.sub("", text.split("\n")[0]).rstrip(". ")
    place = _AT.search(reason)
    path = (place[1] if place else "") or ".".join(_NAMED.findall(text))
    raise BadField(snake_case(path), f"{_AT.sub('', reason)[:300]}.")


def camel_case(path: str) -> str:
    """Return a field's name, or a path of names, as JSON has it."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), path)


def snake_case(path: str) -> str:
    """Return a field's name, or a path of names, as the protos have it."""
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", path)
