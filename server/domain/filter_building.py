"""From a tree to the filter that matches the same clients, with as few groups as it takes, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from server.domain.filter_tree import EVERYBODY, And, Atom, Not, Or, Problem, Tree, first_position, set_fields
from server.domain.filters import AttributeCondition, ClientFilter, Op

_LISTS = ("tags", "operator_codes", "timezones", "client_ids", "phone_prefixes")
_SUMS = ("attribute_conditions", "exclude_mailings", "only_mailings", "none_of")
_MEETING = ("tags", "operator_codes", "client_ids")
_INVERSE = {Op.IN: Op.NOT_IN, Op.PREFIX: Op.NOT_PREFIX, Op.EXISTS: Op.MISSING}
_INVERSE |= {inverse: op for op, inverse in _INVERSE.items()}


def built(tree: Tree, inside: bool = False) -> ClientFilter:
    """Return the filter of a tree. Raise Problem for one that cannot be said, or that contradicts itself.

    `inside` an OR or a NOT a part that contradicts itself leaves others to match.
    """
    if isinstance(tree, Atom):
        return tree.chosen
    if isinstance(tree, And):
        return _together([(first_position(part), built(part, inside)) for part in tree.parts], inside)
    parts = [built(part, True) for part in (tree.parts if isinstance(tree, Or) else (tree.inner,))]
    if any(part.sample for part in parts):
        raise Problem(first_position(tree), "a sample is taken of the whole: combine sample(…) by AND alone")
    return _alternatives(parts) if isinstance(tree, Or) else _negated(parts[0])


def _negated(chosen: ClientFilter) -> ClientFilter:
    match set_fields(chosen):
        case ["only_mailings"] if len(chosen.only_mailings) == 1:
            return ClientFilter(exclude_mailings=chosen.only_mailings)
        case ["attribute_conditions"] if len(chosen.attribute_conditions) == 1:
            (one,) = chosen.attribute_conditions
            if one.op in _INVERSE:
                return ClientFilter(attribute_conditions=(replace(one, op=_INVERSE[one.op]),))
    return ClientFilter(none_of=(chosen,))


def _alternatives(parts: Sequence[ClientFilter]) -> ClientFilter:
    """Return who matches any: one list where all parts are of one field, else groups."""
    named = {tuple(set_fields(part)) for part in parts}
    if len(named) == 1 and (only := named.pop()) and len(only) == 1:
        (name,) = only
        if name in _LISTS:
            values = dict.fromkeys(value for part in parts for value in getattr(part, name))
            return ClientFilter().having(**{name: tuple(values)})
        if name == "attribute_conditions" and (joined := _joined([part.attribute_conditions for part in parts])):
            return ClientFilter(attribute_conditions=(joined,))
    return ClientFilter(any_of=tuple(parts))


def _joined(conditions: Sequence[tuple[AttributeCondition, ...]]) -> AttributeCondition | None:
    """Return one condition for several on an attribute, of which any must hold; None where there is none."""
    first = conditions[0][0]
    alike = all(len(some) == 1 and (some[0].name, some[0].op) == (first.name, first.op) for some in conditions)
    if not alike or first.op not in (Op.IN, Op.PREFIX):
        return None
    return replace(first, values=tuple(dict.fromkeys(value for (one,) in conditions for value in one.values)))


def _together(parts: Sequence[tuple[int, ClientFilter]], inside: bool) -> ClientFilter:
    return reduce(lambda left, right: (0, _both(left[1], right[1], right[0], inside)), parts)[1]


def _both(left: ClientFilter, right: ClientFilter, position: int, inside: bool) -> ClientFilter:
    """Return who matches both. A field that both have and that holds one of them is asked by a double negation."""
    for name in set_fields(right):
        ours, theirs = getattr(left, name), getattr(right, name)
        if not ours:
            left = left.having(**{name: theirs})
        elif name in _SUMS:
            left = left.having(**{name: (*ours, *theirs)})
        elif name in _MEETING and (shared := tuple(value for value in ours if value in theirs)):
            left = left.having(**{name: shared})
        elif name in _MEETING and not inside:
            raise Problem(position, "contradicts an earlier condition, so nobody matches")
        elif name == "created_since":
            left = left.having(created_since=max(ours, theirs))
        elif name == "sample":
            raise Problem(position, "a sample can be taken once only")
        else:
            inner = ClientFilter(none_of=(ClientFilter().having(**{name: theirs}),))
            left = left.having(none_of=(*left.none_of, inner))
    return left


def tree_of(chosen: ClientFilter) -> Tree:
    """Return the tree of a filter, not in its normal form."""
    parts: list[Tree] = [_one_of(name, getattr(chosen, name)) for name in _LISTS if getattr(chosen, name)]
    equal = [AttributeCondition(name, Op.IN, (value,)) for name, value in chosen.attributes.items()]
    parts += [_about(one) for one in (*equal, *chosen.attribute_conditions)]
    parts += [Atom(ClientFilter(only_mailings=(one,))) for one in chosen.only_mailings]
    parts += [Not(Atom(ClientFilter(only_mailings=(one,)))) for one in chosen.exclude_mailings]
    for name in ("created_since", "segment", "sample"):
        if getattr(chosen, name):
            parts.append(Atom(ClientFilter().having(**{name: getattr(chosen, name)})))
    parts += [Not(tree_of(group)) for group in chosen.none_of]
    parts += [Or(tuple(map(tree_of, chosen.any_of)))] if chosen.any_of else []
    return And(tuple(parts)) if parts else EVERYBODY


_ONE: Mapping[str, Callable[[tuple[Any, ...]], ClientFilter]] = {
    "tags": lambda value: ClientFilter(tags=value),
    "operator_codes": lambda value: ClientFilter(operator_codes=value),
    "timezones": lambda value: ClientFilter(timezones=value),
    "client_ids": lambda value: ClientFilter(client_ids=value),
    "phone_prefixes": lambda value: ClientFilter(phone_prefixes=value),
}


def _one_of(name: str, values: Iterable[Any]) -> Tree:
    make = _ONE[name]
    return Or(tuple(Atom(make((value,))) for value in values))


def _about(condition: AttributeCondition) -> Tree:
    op = _INVERSE[condition.op] if condition.op in (Op.NOT_IN, Op.NOT_PREFIX, Op.MISSING) else condition.op
    each = [AttributeCondition(condition.name, op, (value,)) for value in condition.values]
    each = each or [AttributeCondition(condition.name, op)]
    tree = Or(tuple(Atom(ClientFilter(attribute_conditions=(one,))) for one in each))
    return tree if op is condition.op else Not(tree)
