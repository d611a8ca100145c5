"""Writes a tree as text, in a normal form: equal trees have equal texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC

from dispatcher.model.states import Status
from server.domain.filter_tree import EVERYBODY, And, Atom, Not, Or, Tree, set_fields
from server.domain.filters import ORDERS, AttributeCondition, ClientFilter, Op, is_number


def normal(tree: Tree) -> Tree:
    """Return the tree without double negations and groups of one or within their like, in the order of its text."""
    match tree:
        case Atom():
            return tree
        case Not(inner):
            return _inverse(normal(inner))
        case And(parts):
            return _group(And, parts)
        case Or(parts):
            return _group(Or, parts)


def _group(kind: type[And] | type[Or], parts: Iterable[Tree]) -> Tree:
    flat: dict[str, Tree] = {}
    for part in map(normal, parts):
        for one in part.parts if isinstance(part, kind) else (part,):
            flat.setdefault(written(one), one)
    if len(flat) > 1 and kind is And:
        flat.pop(written(EVERYBODY), None)
    ordered = tuple(flat[text] for text in sorted(flat))
    return ordered[0] if len(ordered) == 1 else kind(ordered)


def _inverse(inner: Tree) -> Tree:
    if isinstance(inner, Not):
        return inner.inner
    if isinstance(inner, And) and all(isinstance(part, Not) for part in inner.parts):
        return _group(Or, [part.inner for part in inner.parts if isinstance(part, Not)])
    return Not(inner)


def written(tree: Tree) -> str:
    """Return the text of a tree."""
    match tree:
        case Atom(chosen):
            return _condition(chosen)
        case Not(inner):
            return f"NOT {_within(inner)}"
        case And(parts):
            return " AND ".join(map(_within, parts))
        case Or(parts):
            return " OR ".join(map(_within, parts))


def _within(tree: Tree) -> str:
    return f"({written(tree)})" if isinstance(tree, And | Or) else written(tree)


def _condition(chosen: ClientFilter) -> str:
    match set_fields(chosen):
        case []:
            return "id:*"
        case ["attribute_conditions"]:
            return _attribute_text(chosen.attribute_conditions[0])
        case ["only_mailings"]:
            (one,) = chosen.only_mailings
            statuses = () if set(one.wanted) == {Status.DELIVERED} else sorted(one.wanted)
            return f"got({', '.join([str(one.mailing_id), *(status.name for status in statuses)])})"
        case ["created_since"]:
            assert chosen.created_since is not None
            return f"create_time >= {_quoted(chosen.created_since.astimezone(UTC).isoformat().replace('+00:00', 'Z'))}"
        case ["sample"]:
            assert chosen.sample is not None
            seed = f", {chosen.sample.seed}" if chosen.sample.seed else ""
            return f"sample({chosen.sample.size}{seed})"
        case ["client_ids"]:
            return f"id = {chosen.client_ids[0]}"
        case ["phone_prefixes"]:
            return f'phone = "{chosen.phone_prefixes[0]}*"'
        case ["segment"]:
            return f"segment = {_quoted(chosen.segment)}"
        case [name]:
            return f"{name.removesuffix('s')} = {_quoted(getattr(chosen, name)[0])}"
        case _:
            raise ValueError("not a single condition")


def _attribute_text(condition: AttributeCondition) -> str:
    name = f"attributes.{condition.name}"
    if condition.op is Op.EXISTS:
        return f"{name}:*"
    (value,) = condition.values
    if condition.op in ORDERS:
        return f"{name} {ORDERS[condition.op]} {value if is_number(value) else _quoted(value)}"
    return f"{name} = {_quoted(value, '*' if condition.op is Op.PREFIX else '')}"


def _quoted(text: str, end: str = "") -> str:
    escaped = re.sub(r'([\\"*])', r"\\\1", text)
    return f'"{escaped}{end}"'
