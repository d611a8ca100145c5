"""Write openapi.json, the API over HTTP in OpenAPI 3.0.3, from the protos: `python docs/openapi.py`.

With --check only compare the file with the protos, and exit with 1 if they differ. The paths are those that the service
serves, from the same descriptors; descriptions are the comments of the protos.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from docs.api import PACKAGE, ROOT, File, read_protos
from docs.api_examples import EXAMPLES
from mailing.v1.error_pb2 import ErrorReason
from server.console.http_api.bindings import Binding, bindings, field_at, services
from server.console.http_api.requests import camel_case

PAGE = ROOT / "server" / "console" / "openapi.json"
_ABOUT = (
    "The API of Mailing over HTTP with JSON, beside the console. Ids are 64-bit numbers and travel as text; what is 0, "
    "empty or false is left out of answers. A phone goes into a body, never into an address. Streams are JSON lines: "
    '`{"result": …}` each, and `{"error": …}` at last if they fail.'
)
_KNOWN: Mapping[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "example": "1.5s"},
    "google.protobuf.FieldMask": {"type": "string", "example": "tag,receiveWindow.start"},
}
"""Messages that have a form of their own in JSON."""

_F = FieldDescriptor
_SCALARS: Mapping[int, dict[str, Any]] = {
    _F.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    _F.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    _F.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    _F.CPPTYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    _F.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    _F.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    _F.CPPTYPE_BOOL: {"type": "boolean"},
    _F.CPPTYPE_STRING: {"type": "string"},
}
_BEHAVIOUR = {field_behavior_pb2.OUTPUT_ONLY: {"readOnly": True}, field_behavior_pb2.INPUT_ONLY: {"writeOnly": True}}
_NAMED = ("service", "method", "message_type", "nested_type", "enum_type", "field", "value")
"""Parts of a file that have names."""


def document(files: list[File]) -> dict[str, Any]:
    """Return the description of the API."""
    return _Document(files).made()


class _Document:
    """The description while it is made: messages and enums join it as something refers to them."""

    def __init__(self, files: list[File]) -> None:
        self._comments = dict(_comments(files))
        self._schemas: dict[str, Any] = {}

    def made(self) -> dict[str, Any]:
        """Return the whole."""
        paths: dict[str, dict[str, Any]] = {}
        numbers: dict[str, int] = {}
        for binding in bindings():
            name = binding.method.name
            numbers[name] = numbers.get(name, 0) + 1
            path = re.sub(r"\{(.+?)\}", lambda found: f"{{{_parameter(found[1])}}}", binding.template)
            paths.setdefault(path, {})[binding.verb.lower()] = self._operation(binding, numbers[name])
        error = self._status()
        return {
            "openapi": "3.0.3",
            "info": {"title": "Mailing", "version": "v1", "description": _ABOUT},
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}, {}],
            "tags": [{"name": one.name, "description": self._comments[one.full_name]} for one in services()],
            "paths": paths,
            "components": {
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
                "responses": {"Error": {"description": "The call failed.", "content": _json(error)}},
                "schemas": dict(sorted(self._schemas.items())),
            },
        }

    def _operation(self, binding: Binding, number: int) -> dict[str, Any]:
        method = binding.method
        service, comment = method.containing_service, self._comments[method.full_name]
        made: dict[str, Any] = {
            "operationId": method.name if number == 1 else f"{method.name}_{number}",
            "tags": [service.name],
            "summary": re.split(r"(?<=\.) ", comment.replace("\n", " "))[0],
            "description": comment,
            "parameters": [*self._in_path(binding), *self._in_query(binding)],
        }
        if binding.body:
            made["requestBody"] = {"required": True, "content": {"application/json": self._body(binding)}}
        made["responses"] = {"200": self._answer(method), "default": self._failure(method)}
        return made

    def _in_path(self, binding: Binding) -> Iterator[dict[str, Any]]:
        for path in binding.fields:
            field = field_at(binding.method.input_type, path)
            schema = {"type": "string"} | ({} if field.cpp_type == _F.CPPTYPE_STRING else {"pattern": "^[0-9]+$"})
            about = self._comments[field.full_name]
            yield {"name": _parameter(path), "in": "path", "required": True, "description": about, "schema": schema}

    def _in_query(self, binding: Binding) -> Iterator[dict[str, Any]]:
        for path, field in binding.in_query().items():
            shape = self._shape(field)
            yield {"name": camel_case(path), "in": "query", "description": self._about(field), "schema": shape}

    def _body(self, binding: Binding) -> dict[str, Any]:
        request = binding.method.input_type
        if binding.body == "*":
            taken = {path.partition(".")[0] for path in binding.fields}
            schema = self._object(request, without=taken)
        else:
            field = request.fields_by_name[binding.body]
            schema = self._shape(field)
            if binding.verb == "POST" and field.message_type and (needed := _required(field.message_type)):
                schema = {"allOf": [schema, {"required": needed}]}
        return {"schema": schema} | self._example(binding)

    def _example(self, binding: Binding) -> dict[str, Any]:
        name = f"{binding.method.containing_service.name}.{binding.method.name}"
        example = json.loads(EXAMPLES[name] or "{}")
        for path in binding.fields:
            *outer, last = path.split(".")
            holder = example
            for part in outer:
                holder = holder.get(part, {})
            if holder.pop(last, None) is None:
                return {}
        example = example if binding.body == "*" else example.get(binding.body, {})
        return {"example": _camel(example)}

    def _answer(self, method: MethodDescriptor) -> dict[str, Any]:
        schema, about = self._reference(method.output_type), self._comments[method.output_type.full_name]
        if not method.server_streaming:
            return {"description": about, "content": _json(schema)}
        line = {"type": "object", "properties": {"result": schema, "error": _ref("Status")}}
        return {
            "description": f"A stream of JSON lines. Each: {about}",
            "content": {"application/x-ndjson": {"schema": line}},
        }

    def _failure(self, method: MethodDescriptor) -> dict[str, Any]:
        if not method.server_streaming:
            return _ref("Error", "responses")
        line = {"type": "object", "properties": {"error": _ref("Status")}}
        return {"description": "The stream cannot begin.", "content": {"application/x-ndjson": {"schema": line}}}

    def _status(self) -> dict[str, Any]:
        kinds = [self._object(kind.DESCRIPTOR) for kind in (ErrorInfo, BadRequest, RetryInfo)]
        for kind in kinds:
            kind["properties"] = {"@type": {"type": "string"}, **kind["properties"]}
        names = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:]]
        kinds[0]["properties"]["reason"] = {"type": "string", "enum": names}
        self._schemas["Status"] = {
            "type": "object",
            "description": "google.rpc.Status: why a call failed.",
            "properties": {
                "code": {"type": "integer", "format": "int32", "description": "The code of gRPC."},
                "message": {"type": "string", "description": "One sentence for people."},
                "details": {"type": "array", "items": {"anyOf": kinds}},
            },
        }
        return _ref("Status")

    def _reference(self, message: Descriptor) -> dict[str, Any]:
        if message.full_name in _KNOWN:
            return dict(_KNOWN[message.full_name])
        name = _short(message)
        if name not in self._schemas:
            self._schemas[name] = {}  # until it is made: messages hold themselves
            self._schemas[name] = self._object(message)
        return _ref(name)

    def _object(self, message: Descriptor, without: set[str] | None = None) -> dict[str, Any]:
        properties = {
            field.json_name: self._property(field) for field in message.fields if field.name not in (without or ())
        }
        made = {"type": "object", "description": self._comments.get(message.full_name, ""), "properties": properties}
        # A resource is also what an update changes, so that nothing in it is always needed.
        if message.name.endswith("Request") and (needed := _required(message, without)):
            made["required"] = needed
        return made

    def _property(self, field: FieldDescriptor) -> dict[str, Any]:
        shape, about = self._shape(field), self._about(field)
        for behaviour in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]:
            about_it = _BEHAVIOUR.get(behaviour, {})
            shape = {"allOf": [shape], **about_it} if "$ref" in shape and about_it else {**shape, **about_it}
        if about and "$ref" in shape:
            shape = {"allOf": [shape]}
        return shape | ({"description": about} if about else {})

    def _about(self, field: FieldDescriptor) -> str:
        return self._comments.get(field.full_name, "")

    def _shape(self, field: FieldDescriptor) -> dict[str, Any]:
        if field.message_type and field.message_type.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._shape(field.message_type.fields_by_name["value"])}
        if field.message_type:
            shape = self._reference(field.message_type)
        else:
            shape = self._enum(field.enum_type) if field.enum_type else dict(_SCALARS[field.cpp_type])
        return {"type": "array", "items": shape} if field.is_repeated else shape

    def _enum(self, enum: EnumDescriptor) -> dict[str, Any]:
        name = _short(enum)
        meanings = [
            f"- `{value.name}`: {self._comments.get(f'{enum.full_name}.{value.name}', '')}" for value in enum.values
        ]
        about = "\n".join([self._comments.get(enum.full_name, ""), "", *meanings])
        self._schemas[name] = {"type": "string", "enum": [value.name for value in enum.values], "description": about}
        return _ref(name)


def _comments(files: list[File]) -> Iterator[tuple[str, str]]:
    """Yield the full name of everything with a comment, and the comment in lines of one paragraph each."""
    for file in files:
        for path, text in file.comments.items():
            if text and (name := _name_at(file.proto, path)):
                paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
                yield f"{PACKAGE}.{name}", "\n\n".join(part for part in paragraphs if part)


def _name_at(proto: Any, path: tuple[int, ...]) -> str:
    """Return the name of what a path of a comment leads to, empty for what has none."""
    holder, names = proto, list[str]()
    for number, place in zip(path[::2], path[1::2], strict=False):
        field = holder.DESCRIPTOR.fields_by_number[number]
        if field.name not in _NAMED:
            return ""
        holder = getattr(holder, field.name)[place]
        names.append(holder.name)
    return ".".join(names)


def _required(message: Descriptor, without: set[str] | None = None) -> list[str]:
    needed = field_behavior_pb2.REQUIRED
    return [
        field.json_name
        for field in message.fields
        if needed in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        and field.name not in (without or ())
    ]


def _parameter(path: str) -> str:
    """Return the name of a part of a path: `client.id` is `clientId`, as `client_id` is."""
    return camel_case(path.replace(".", "_"))


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {camel_case(name): _camel(one) for name, one in value.items()}
    return [_camel(one) for one in value] if isinstance(value, list) else value


def _short(kind: Descriptor | EnumDescriptor) -> str:
    return kind.full_name.removeprefix(f"{PACKAGE}.").removeprefix("google.rpc.")


def _ref(name: str, kind: str = "schemas") -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def text_of(made: dict[str, Any]) -> str:
    """Return the file's text."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    text = text_of(document(read_protos()))
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{Path(PAGE).relative_to(ROOT)} is out of date: run `make docs` and commit the result.")
