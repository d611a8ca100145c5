"""Filters: which clients are chosen, as a tree of conditions, and which trees are no filter.

Values within a field are alternatives, all fields that are set must match, groups nest. The tree is stored
as JSON under the names of the contract. `check_filter` reports what is malformed, too large, or can match nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import IntEnum
from typing import Any

from dispatcher.model.states import Status
from server.domain.clients import MAX_TAG, check_timezone, valid_operator_code
from server.domain.validation import (
    MAX_ATTRIBUTE,
    Violations,
    check_attributes,
    check_count,
    check_texts,
    valid_name,
)

MAX_DEPTH = 5
"""How deep groups nest below the outermost filter."""

MAX_CONDITIONS = 100
MAX_GROUPS = 20
MAX_VALUES = 1000
MAX_IDS = 10_000
MAX_ALL_VALUES = 20_000
"""Values of all lists and groups together."""

_valid_prefix = re.compile(r"[1-9][0-9]{0,14}").fullmatch
valid_segment = re.compile(r"[\w.-]{1,100}").fullmatch
"""Matches the name of a segment."""
is_number = re.compile(r"[+-]?[0-9]{1,100}(\.[0-9]{1,100})?", re.ASCII).fullmatch
"""Matches a decimal number, as attributes hold it."""

_TIME = re.compile(
    r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9]))?",
    re.ASCII,
)


class Op(IntEnum):
    """How an attribute is compared; the numbers are those of the contract."""

    IN = 1
    NOT_IN = 2
    PREFIX = 3
    NOT_PREFIX = 4
    EXISTS = 5
    MISSING = 6
    LESS = 7
    LESS_OR_EQUAL = 8
    GREATER = 9
    GREATER_OR_EQUAL = 10


ORDERS: Mapping[Op, str] = {Op.LESS: "<", Op.LESS_OR_EQUAL: "<=", Op.GREATER: ">", Op.GREATER_OR_EQUAL: ">="}
"""The operators that compare numbers or times, and how they are written."""


@dataclass(frozen=True, slots=True)
class AttributeCondition:
    """Compares one attribute with values; see `Op`."""

    name: str
    op: Op = Op.IN
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MailingCondition:
    """What became of the client's message of a mailing; without statuses DELIVERED."""

    mailing_id: int
    statuses: tuple[Status, ...] = ()

    @property
    def wanted(self) -> tuple[Status, ...]:
        """The statuses that match."""
        return self.statuses or (Status.DELIVERED,)


@dataclass(frozen=True, slots=True)
class Sample:
    """Takes `size` clients of those who match, at random; the same ones for the same seed."""

    size: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ClientFilter:
    """Selects clients: any value within a field, every field that is set; empty matches all.

    `all_of` is not of the contract: it holds the filters of the segments that were named.
    """

    tags: tuple[str, ...] = ()
    operator_codes: tuple[str, ...] = ()
    timezones: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    client_ids: tuple[int, ...] = ()
    attribute_conditions: tuple[AttributeCondition, ...] = ()
    any_of: tuple[ClientFilter, ...] = ()
    none_of: tuple[ClientFilter, ...] = ()
    phone_prefixes: tuple[str, ...] = ()
    created_since: datetime | None = None
    exclude_mailings: tuple[MailingCondition, ...] = ()
    only_mailings: tuple[MailingCondition, ...] = ()
    sample: Sample | None = None
    segment: str = ""
    all_of: tuple[ClientFilter, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are set, by their names, as JSON holds them."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: _as_json(value) for name, value in values if value}

    def having(self, **values: Any) -> ClientFilter:
        """Return the filter with other values of some fields."""
        return replace(self, **values)

    @property
    def groups(self) -> Iterator[tuple[str, ClientFilter]]:
        """The filters directly below this one, with their places."""
        for name in ("any_of", "none_of", "all_of"):
            for index, group in enumerate(getattr(self, name)):
                yield f"{name}[{index}]", group

    @property
    def empty(self) -> bool:
        """Whether the filter matches everybody."""
        return not self.as_json()


def filter_from_json(stored: Mapping[str, Any]) -> ClientFilter:
    """Return the filter that `as_json` wrote."""
    return ClientFilter(**{name: _READERS[name](value) for name, value in stored.items()})


def is_time(text: str) -> bool:
    """Return whether the text is a date, or a time of RFC 3339 with its offset from UTC."""
    try:
        return bool(_TIME.fullmatch(text)) and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def names_of_segments(chosen: ClientFilter, path: str) -> Iterator[tuple[str, str]]:
    """Yield every segment that a filter names, at any depth, with the path of the field."""
    if chosen.segment:
        yield f"{path}.segment", chosen.segment
    for place, group in chosen.groups:
        yield from names_of_segments(group, f"{path}.{place}")


def mailings_in(chosen: ClientFilter) -> set[int]:
    """Return the mailings about whose messages a filter asks, at any depth."""
    own = {one.mailing_id for one in (*chosen.exclude_mailings, *chosen.only_mailings)}
    return own.union(*(mailings_in(group) for _, group in chosen.groups))


def with_segments(chosen: ClientFilter, named: Mapping[str, ClientFilter]) -> ClientFilter:
    """Return the filter with those of its segments, by name, put in at any depth."""
    groups = {name: tuple(with_segments(one, named) for one in getattr(chosen, name)) for name in ("any_of", "none_of")}
    inner = (*chosen.all_of, named[chosen.segment]) if chosen.segment else chosen.all_of
    return chosen.having(**groups, all_of=inner, segment="")


def with_names(chosen: ClientFilter, names: Mapping[str, str]) -> ClientFilter:
    """Return the filter with other names of segments, at any depth; those not among `names` stay."""
    groups = {name: tuple(with_names(one, names) for one in getattr(chosen, name)) for name in ("any_of", "none_of")}
    return chosen.having(**groups, segment=names.get(chosen.segment, chosen.segment))


def check_filter(chosen: ClientFilter, zones: Collection[str], path: str, violations: Violations) -> None:
    """Report every violation of a filter, at paths below `path`."""
    if (conditions := conditions_in(chosen)) > MAX_CONDITIONS:
        violations.add(path, f"must have at most {MAX_CONDITIONS} conditions in all, not {conditions:,}")
        return
    if (values := values_in(chosen)) > MAX_ALL_VALUES:
        violations.add(path, f"must have at most {MAX_ALL_VALUES:,} values in all, not {values:,}")
        return
    _Check(zones, violations).tree(chosen, path, 0)


def conditions_in(chosen: ClientFilter) -> int:
    """Return how many conditions a filter has, its groups included; a list of values is one."""
    lists = (chosen.tags, chosen.operator_codes, chosen.timezones, chosen.client_ids, chosen.phone_prefixes)
    single = (chosen.created_since, chosen.sample, chosen.segment)
    many = (chosen.attributes, chosen.attribute_conditions, chosen.exclude_mailings, chosen.only_mailings)
    own = sum(map(bool, lists)) + sum(map(bool, single)) + sum(map(len, many))
    return own + sum(max(1, conditions_in(group)) for _, group in chosen.groups)


def values_in(chosen: ClientFilter) -> int:
    """Return how many values the lists of a filter have, those of its groups included."""
    lists = (chosen.tags, chosen.operator_codes, chosen.timezones, chosen.client_ids, chosen.phone_prefixes)
    own = sum(map(len, lists)) + sum(len(one.values) for one in chosen.attribute_conditions)
    return own + sum(values_in(group) for _, group in chosen.groups)


class _Check:
    """Walks a tree of filters and reports what is wrong with each."""

    def __init__(self, zones: Collection[str], violations: Violations) -> None:
        self._zones = zones
        self._violations = violations

    def tree(self, chosen: ClientFilter, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._violations.add(path, f"is nested more than {MAX_DEPTH} deep")
            return
        self._lists(chosen, path)
        self._conditions(chosen, path)
        self._sample(chosen, path, depth)
        self._contradictions(chosen, path)
        for name in ("any_of", "none_of"):
            check_count(getattr(chosen, name), MAX_GROUPS, f"{path}.{name}", self._violations)
        for place, group in chosen.groups:
            self.tree(group, f"{path}.{place}", depth + 1)

    def _lists(self, chosen: ClientFilter, path: str) -> None:
        found = self._violations
        if check_count(chosen.tags, MAX_VALUES, f"{path}.tags", found):
            check_texts(chosen.tags, MAX_TAG, f"{path}.tags", found)
        self._each(chosen.operator_codes, f"{path}.operator_codes", valid_operator_code, "must be three digits")
        if check_count(chosen.timezones, MAX_VALUES, f"{path}.timezones", found):
            for index, zone in enumerate(chosen.timezones):
                check_timezone(zone, self._zones, f"{path}.timezones[{index}]", found)
        check_attributes(chosen.attributes, f"{path}.attributes", found)
        check_count(chosen.client_ids, MAX_IDS, f"{path}.client_ids", found)
        prefixes = "must be 1 to 15 digits, the first not 0 and without the '+'"
        self._each(chosen.phone_prefixes, f"{path}.phone_prefixes", _valid_prefix, prefixes)
        if chosen.segment and not valid_segment(chosen.segment):
            found.add(f"{path}.segment", "must be 1 to 100 letters, digits, '_', '-' or '.'")

    def _each(self, values: Sequence[str], path: str, valid: Callable[[str], object], sentence: str) -> None:
        if check_count(values, MAX_VALUES, path, self._violations):
            for index, value in enumerate(values):
                if not valid(value):
                    self._violations.add(f"{path}[{index}]", sentence)

    def _conditions(self, chosen: ClientFilter, path: str) -> None:
        for index, condition in enumerate(chosen.attribute_conditions):
            self._attribute(condition, f"{path}.attribute_conditions[{index}]")
        for name in ("exclude_mailings", "only_mailings"):
            check_count(getattr(chosen, name), MAX_GROUPS, f"{path}.{name}", self._violations)
            for index, about in enumerate(getattr(chosen, name)):
                if about.mailing_id <= 0:
                    self._violations.add(f"{path}.{name}[{index}].mailing_id", "is required and must be a positive id")

    def _attribute(self, condition: AttributeCondition, path: str) -> None:
        found, values, op = self._violations, condition.values, condition.op
        if not valid_name(condition.name):
            found.add(f"{path}.name", "is required: 1 to 64 letters, digits or '_'")
        if op in (Op.EXISTS, Op.MISSING):
            if values:
                found.add(f"{path}.values", f"must be empty for {op.name}")
        elif not values:
            found.add(f"{path}.values", "is required: what the attribute is compared with")
        elif op in ORDERS:
            self._order(op, values, f"{path}.values")
        elif check_count(values, MAX_VALUES, f"{path}.values", found):
            check_texts(values, MAX_ATTRIBUTE, f"{path}.values", found)

    def _order(self, op: Op, values: Sequence[str], path: str) -> None:
        if len(values) > 1:
            self._violations.add(path, f"must be exactly one for {op.name}, not {len(values):,}")
        elif not is_number(values[0]) and not is_time(values[0]):
            sentence = "must be a number, a date such as 2026-11-29 or a time such as 2026-11-29T10:00:00Z"
            self._violations.add(f"{path}[0]", f"{sentence}: texts have no order")

    def _sample(self, chosen: ClientFilter, path: str, depth: int) -> None:
        if chosen.sample is None:
            return
        if depth:
            self._violations.add(f"{path}.sample", "is only possible in the outermost filter")
        elif chosen.sample.size < 1:
            self._violations.add(f"{path}.sample.size", "must be at least 1")

    def _contradictions(self, chosen: ClientFilter, path: str) -> None:
        """Report what can match no client at all."""
        for index, group in enumerate(chosen.none_of):
            if group.empty:
                self._violations.add(f"{path}.none_of[{index}]", "is empty, which matches every client: nobody is left")
        for index, about in enumerate(chosen.only_mailings):
            for other in chosen.exclude_mailings:
                if other.mailing_id == about.mailing_id and set(about.wanted) <= set(other.wanted):
                    self._violations.add(
                        f"{path}.only_mailings[{index}]", "matches nobody: exclude_mailings has it, too"
                    )
        names = {one.name for one in chosen.attribute_conditions}
        for name in sorted(names):
            about_it = [one for one in chosen.attribute_conditions if one.name == name]
            if sentence := _contradiction(about_it, chosen.attributes.get(name)):
                self._violations.add(f"{path}.attribute_conditions", f"{name}: {sentence}")


def _contradiction(conditions: Sequence[AttributeCondition], equal: str | None) -> str:
    """Return why no value of an attribute meets all of these, '' when some may."""
    ops = {one.op for one in conditions}
    allowed = [set(one.values) for one in conditions if one.op is Op.IN and one.values] + (
        [{equal}] if equal is not None else []
    )
    if Op.MISSING in ops and (allowed or ops & {Op.EXISTS, Op.PREFIX, *ORDERS}):
        return "cannot be missing and have a value, so nobody matches"
    banned = set().union(*(one.values for one in conditions if one.op is Op.NOT_IN))
    if allowed and not set.intersection(*allowed) - banned:
        return "no value is one of all of these lists, so nobody matches"
    bounds = [(one.op, one.values[0]) for one in conditions if one.op in ORDERS and len(one.values) == 1]
    numbers = [(op, float(value)) for op, value in bounds if is_number(value)]
    if 0 < len(numbers) < len(bounds):
        return "is compared with a number and with a time; one value is never both"
    if _empty_range(numbers) or _empty_range([(op, _instant(value)) for op, value in bounds if is_time(value)]):
        return "no value lies between these bounds, so nobody matches"
    return ""


def _empty_range(bounds: Sequence[tuple[Op, float]]) -> bool:
    lowest = max((value for op, value in bounds if op in (Op.GREATER, Op.GREATER_OR_EQUAL)), default=float("-inf"))
    highest = min((value for op, value in bounds if op in (Op.LESS, Op.LESS_OR_EQUAL)), default=float("inf"))
    strict = {(Op.GREATER, lowest), (Op.LESS, highest)} & set(bounds)
    return lowest > highest or (lowest == highest and bool(strict))


def _instant(text: str) -> float:
    return datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00+00:00").timestamp()


def _as_json(value: Any) -> Any:
    match value:
        case ClientFilter():
            return value.as_json()
        case AttributeCondition():
            return {"name": value.name, "op": value.op.name, "values": list(value.values)}
        case MailingCondition():
            return {"mailing_id": value.mailing_id, "statuses": [status.name for status in value.statuses]}
        case Sample():
            return {"size": value.size, "seed": value.seed}
        case datetime():
            return value.isoformat()
        case tuple():
            return [_as_json(entry) for entry in value]
        case Mapping():
            return dict(value)
        case _:
            return value


def _filters(stored: Sequence[Mapping[str, Any]]) -> tuple[ClientFilter, ...]:
    return tuple(map(filter_from_json, stored))


def _mailings(stored: Sequence[Mapping[str, Any]]) -> tuple[MailingCondition, ...]:
    return tuple(MailingCondition(one["mailing_id"], tuple(Status[name] for name in one["statuses"])) for one in stored)


def _attributes(stored: Sequence[Mapping[str, Any]]) -> tuple[AttributeCondition, ...]:
    return tuple(AttributeCondition(one["name"], Op[one["op"]], tuple(one["values"])) for one in stored)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("tags", "operator_codes", "timezones", "client_ids", "phone_prefixes"), tuple),
    **dict.fromkeys(("any_of", "none_of", "all_of"), _filters),
    **dict.fromkeys(("exclude_mailings", "only_mailings"), _mailings),
    "attributes": dict,
    "attribute_conditions": _attributes,
    "created_since": datetime.fromisoformat,
    "sample": lambda stored: Sample(**stored),
    "segment": str,
}
"""How each field is read from JSON."""
