"""The HTTP bindings of the API's methods, read from the descriptors: nothing here names a method.

Also tells which fields of a request a query may set. A phone is never among them: addresses end in the logs of proxies.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import mailing.v1

PREFIX = "/v1/"
"""All paths of the API begin with it."""

_VERBS = ("get", "put", "post", "delete", "patch")
_PART = re.compile(r"\{([a-z0-9_.]+)\}")
_SCALAR_MESSAGES = frozenset(f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask"))
"""Messages that JSON writes as a text."""


class Binding(NamedTuple):
    """One way to call a method over HTTP. `body` is the field that the body fills: `*` all, empty none."""

    method: MethodDescriptor
    verb: str
    template: str
    body: str

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that stand in the path, such as `client.id`."""
        return tuple(_PART.findall(self.template))

    @property
    def request(self) -> type[Message]:
        """The class of the request."""
        return GetMessageClass(self.method.input_type)

    @property
    def response(self) -> type[Message]:
        """The class of the response, or of each one of a stream."""
        return GetMessageClass(self.method.output_type)

    def in_query(self) -> Mapping[str, FieldDescriptor]:
        """Return the fields that the query may set, by their paths."""
        if self.body == "*":
            return {}
        taken = {*self.fields, self.body}
        leaves = _leaves(self.method.input_type)
        return {path: field for path, field in leaves.items() if path.partition(".")[0] not in taken}


class Routes:
    """Finds the binding of a path and a verb."""

    def __init__(self) -> None:
        self._routes = [(_pattern(one), one) for one in bindings()]

    def at(self, path: str) -> Mapping[str, tuple[Binding, Mapping[str, str]]]:
        """Return the bindings at a path by verb, each with the values that the path has for its fields."""
        found = {}
        for pattern, binding in self._routes:
            if match := pattern.fullmatch(path):
                found[binding.verb] = binding, dict(zip(binding.fields, match.groups(), strict=True))
        return found


def services() -> Iterator[ServiceDescriptor]:
    """Yield the services of the package."""
    for module in pkgutil.iter_modules(mailing.v1.__path__):
        if module.name.endswith("_service_pb2"):
            file = importlib.import_module(f"{mailing.v1.__name__}.{module.name}").DESCRIPTOR
            yield from file.services_by_name.values()


@cache
def bindings() -> tuple[Binding, ...]:
    """Return the bindings of all methods in the order of the protos."""
    return tuple(binding for service in services() for method in service.methods for binding in _of(method))


def _of(method: MethodDescriptor) -> Iterator[Binding]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    for one in (rule, *rule.additional_bindings):
        verb = one.WhichOneof("pattern")
        if verb in _VERBS:
            yield Binding(method, verb.upper(), getattr(one, verb), one.body)


def field_at(message: Descriptor, path: str) -> FieldDescriptor:
    """Return the field at a path such as `client.id`. Raise KeyError."""
    *outer, last = path.split(".")
    for name in outer:
        inner = message.fields_by_name[name].message_type
        assert inner is not None, f"{path} leads into a message"
        message = inner
    return message.fields_by_name[last]


def is_text(field: FieldDescriptor) -> bool:
    """Return whether JSON writes a value of the field as something other than an object."""
    return field.message_type is None or field.message_type.full_name in _SCALAR_MESSAGES


@cache
def _leaves(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Return what a query can say of a message: no phones, nothing in lists or maps, no resource."""
    found: dict[str, FieldDescriptor] = {}
    for field in message.fields:
        if "phone" in field.name:
            continue
        if is_text(field):
            found[field.name] = field
        elif (inner := field.message_type) and not field.is_repeated and "etag" not in inner.fields_by_name:
            found |= {f"{field.name}.{path}": leaf for path, leaf in _leaves(inner).items()}
    return found


def _pattern(binding: Binding) -> re.Pattern[str]:
    """Return what matches the paths of a binding. Ids are digits, so `/v1/clients/x` is no path at all."""
    parts = _PART.split(binding.template)
    for place in range(1, len(parts), 2):
        is_number = field_at(binding.method.input_type, parts[place]).cpp_type != FieldDescriptor.CPPTYPE_STRING
        parts[place] = "([0-9]{1,19})" if is_number else "([^/]+)"
    parts[::2] = map(re.escape, parts[::2])
    return re.compile("".join(parts))
