"""Rejects requests with fields of the contract that this version does not implement: the table of these.

A method of the table answers UNIMPLEMENTED by itself. A field of the table would be ignored
silently, and a mailing be sent to more clients or at another time than requested, so a request that
sets one, at any depth, is rejected with the field's path. Implementing a method or a field means
removing it from the table; the API reference follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message as ProtoMessage

METHODS: Mapping[str, frozenset[str]] = {
    service: frozenset(methods.split())
    for service, methods in {
        "mailing.v1.AdminService": "VerifyLedger",
    }.items()
}
"""Methods, by service."""

FIELDS: Mapping[str, frozenset[str]] = {}
"""Fields of requests, and of the resources in them, by message. Fields that are only read are simply empty."""


class FieldTable:
    """Finds the fields of a table, by message, that a request sets."""

    def __init__(self, fields: Mapping[str, frozenset[str]]) -> None:
        self._fields = fields
        self._plans: dict[Descriptor, _Plan] = {}

    def paths(self, message: ProtoMessage, path: str = "") -> list[str]:
        """Return the paths of the fields that are set and in the table, such as `mailing.filter.any_of`."""
        descriptor: Any = message.DESCRIPTOR
        plan = self._plans.get(descriptor) or self._plan(descriptor)
        if not (plan.listed or plan.leading):
            return []
        found = []
        for field, value in message.ListFields():
            name = f"{path}{field.name}"
            if field.name in plan.listed:
                found.append(name)
            elif field.name in plan.leading:
                for place, part in [(name, value)] if not field.is_repeated else _parts(name, value):
                    found += self.paths(part, f"{place}.")
        return found

    def _plan(self, descriptor: Descriptor) -> _Plan:
        """Make the plan of a type, once; for most types it is empty, which costs a request nothing."""
        listed = self._fields.get(descriptor.full_name, frozenset())
        leading = (field.name for field in descriptor.fields if field.message_type and self._leads(field.message_type))
        self._plans[descriptor] = _Plan(listed, frozenset(leading))
        return self._plans[descriptor]

    def _leads(self, descriptor: Descriptor) -> bool:
        return not self._fields.keys().isdisjoint(_reachable(descriptor, set()))


UNSERVED = FieldTable(FIELDS)


def _parts(name: str, values: Any) -> Iterator[tuple[str, ProtoMessage]]:
    return ((f"{name}[{index}]", value) for index, value in enumerate(values))


class _Plan(NamedTuple):
    """The fields to check in messages of one type."""

    listed: frozenset[str]
    leading: frozenset[str]
    """The fields whose messages may have fields of the table, at any depth."""


def _reachable(descriptor: Descriptor, known: set[str]) -> set[str]:
    """Return the names of all types that a message may contain, its own included."""
    if descriptor.full_name not in known:
        known.add(descriptor.full_name)
        for field in descriptor.fields:
            if field.message_type:
                _reachable(field.message_type, known)
    return known
