"""Strategies for requests of any method, made from its descriptor alone.

Three kinds come mixed: messages whose fields are arbitrary or mean something, the same with some
of their bytes changed, and bytes of any kind. Fields that are not served yet are left out: a request
that sets one is refused at once, and would try nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Known = Mapping[str, Sequence[Any]]
"""Values that mean something, by the name of the field they are for, such as ids that exist."""


def _repeated(what: tuple[str, int]) -> str:
    return what[0] * what[1]


_INT32 = st.one_of(st.sampled_from([0, 1, -1, 2, 2**31 - 1, -(2**31)]), st.integers(-(2**31), 2**31 - 1))
_INT64 = st.one_of(
    st.sampled_from([0, 1, -1, 2**31, 2**32, 2**52, 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1)
)
_DOUBLE = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1e308, math.inf, -math.inf, math.nan]), st.floats())
_TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\0", "a\0b", "{", "{tag}", "{attributes.a|b}", "*", "%s", "'; --", "\u202e", "😀", "\\"]
    ),
    st.tuples(st.sampled_from(["x", "ж", "{", "0"]), st.sampled_from([65, 101, 1001, 10_001])).map(_repeated),
)
_SCALARS: Mapping[int, SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_ENUM: st.one_of(st.integers(-1, 12), _INT32),
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_DOUBLE: _DOUBLE,
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
}
_NANOS = st.one_of(st.sampled_from([0, 1, 1000, 999_999_999, 10**9, -1]), _INT32)
_SECONDS: Mapping[str, SearchStrategy[int]] = {
    "google.protobuf.Timestamp": st.one_of(
        st.integers(-1000, 1000).map(lambda seconds: int(time.time()) + seconds),
        st.sampled_from([0, -62_135_596_800, 253_402_300_799, 253_402_300_800]),
        _INT64,
    ),
    "google.protobuf.Duration": st.one_of(
        st.integers(0, 86_400), st.sampled_from([-1, 315_576_000_000, 315_576_000_001]), _INT64
    ),
}


class Messages:
    """Strategies for messages, by their type."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._made: dict[str, SearchStrategy[Message]] = {}

    def of(self, descriptor: Descriptor) -> SearchStrategy[Message]:
        """Return messages of this type, any of whose fields may be missing."""
        name = descriptor.full_name
        if name not in self._made:
            self._made[name] = st.deferred(lambda: self._build(descriptor))
        return self._made[name]

    def _build(self, descriptor: Descriptor) -> SearchStrategy[Message]:
        make = GetMessageClass(descriptor)
        fields = {field.name: self._field(field) for field in descriptor.fields}
        if descriptor.full_name in _SECONDS:
            fields = {"seconds": _SECONDS[descriptor.full_name], "nanos": _NANOS}
        return st.fixed_dictionaries({}, optional=fields).map(lambda values: make(**values))

    def _field(self, field: FieldDescriptor) -> SearchStrategy[Any]:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            return st.dictionaries(self._one(entry["key"]), self._one(entry["value"]), max_size=3)
        if field.is_repeated:
            # Messages within messages of their own type would grow without end if there were more.
            recursive = field.message_type is not None and field.message_type is field.containing_type
            return st.lists(self._one(field), max_size=1 if recursive else 3)
        return self._one(field)

    def _one(self, field: FieldDescriptor) -> SearchStrategy[Any]:
        anything = self.of(field.message_type) if field.message_type else _SCALARS[field.type]
        known = self._known.get(field.name)
        return st.one_of(st.sampled_from(known), anything) if known else anything


def payloads(messages: SearchStrategy[Message]) -> SearchStrategy[bytes]:
    """Return requests as bytes: `messages` whole and damaged, and what is none at all."""
    whole = messages.map(lambda message: message.SerializeToString())
    return st.one_of(whole, whole, damaged(whole), st.binary(max_size=100))


@st.composite
def damaged(draw: DrawFn, whole: SearchStrategy[bytes]) -> bytes:
    """Return bytes of which some were changed, inserted, removed or repeated."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "insert", "remove", "repeat", "cut"])):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                data[at:at] = draw(st.binary(max_size=6))
            case "remove":
                del data[at : at + draw(st.integers(1, 6))]
            case "repeat":
                data[at:at] = data[max(0, at - 30) : at]
            case _:
                del data[at:]
    return bytes(data)
