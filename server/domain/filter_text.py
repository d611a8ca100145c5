"""Filters as text (AIP-160), such as `tag = "vip" AND attributes.age >= 30 AND NOT got(17)`.

`parse_filter` reads a text, `text_of` writes one in a normal form: equal filters have equal texts. Between the two
stands a tree of AND, OR and NOT over single conditions. Where AND and OR meet, parentheses are required: the standard
binds OR closer than AND, which nobody expects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache, reduce
from typing import Any, TypeAlias

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from dispatcher.model.states import Status
from server.domain.clients import normal_tag
from server.domain.errors import InvalidFilter
from server.domain.filters import (
    ORDERS,
    AttributeCondition,
    ClientFilter,
    MailingCondition,
    Op,
    Sample,
    is_number,
    is_time,
)

MAX_TEXT = 4_000
"""Characters of a filter's text: reading them takes some 50 ms. Longer lists are sent as a message."""

MAX_NESTING = 20
"""How deep parentheses and NOT nest in a text."""

_GRAMMAR = r"""
    ?start: expression
    ?expression: factor | conjunction | disjunction
    conjunction: factor ("AND" factor)+
    disjunction: factor ("OR" factor)+
    ?factor: primary | ("NOT" | "-") primary -> negation
    ?primary: comparison | call | "(" expression ")" -> nested
    comparison: NAME COMPARATOR value
    call: NAME "(" [value ("," value)*] ")"
    value: STRING | WORD | STAR

    NAME: /[^\W\d]\w*(\.\w+)?/
    COMPARATOR: "=" | "!=" | "<=" | ">=" | "<" | ">" | ":"
    STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/s
    WORD: /[\w+-][\w+.:\/-]*\*?/
    STAR: "*"
    %ignore /\s+/
"""


class _Problem(Exception):
    """What is wrong with a text, and where."""

    def __init__(self, position: int, sentence: str) -> None:
        super().__init__(sentence)
        self.position = position
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Atom:
    """One condition: a filter with a single field of a single value. An empty one matches everybody."""

    chosen: ClientFilter
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Matches whom the inner tree does not."""

    inner: Tree


@dataclass(frozen=True, slots=True)
class And:
    """Matches whom all parts match."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Matches whom some part matches."""

    parts: tuple[Tree, ...]


Tree: TypeAlias = Atom | Not | And | Or


def parse_filter(text: str, path: str) -> ClientFilter:
    """Return the filter of a text, unchecked; `path` is that of its field. Raise InvalidFilter."""
    if len(text) > MAX_TEXT:
        raise InvalidFilter(path, text, MAX_TEXT, f"must have at most {MAX_TEXT:,} characters, not {len(text):,}")
    try:
        return _built(_normal(_parsed(text)))
    except _Problem as problem:
        raise InvalidFilter(path, text, problem.position, problem.sentence) from None


def text_of(chosen: ClientFilter) -> str:
    """Return the normal text of a filter, '' for the one that matches everybody."""
    tree = _normal(_tree(chosen))
    with suppress(_Problem):  # of one that nobody matches, its contradictions are written
        tree = _normal(_tree(_built(tree)))
    return "" if tree == _EVERYBODY else _written(tree)


def _parsed(text: str) -> Tree:
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedToken as error:
        raise _unexpected(error.token, len(text)) from None
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        raise _Problem(position, _character(text, position)) from None
    checked: Tree = tree
    return checked


_EXPECTED = 'expected a condition such as tag = "vip"'


def _unexpected(token: Token, end: int) -> _Problem:
    if token.type == "$END":
        return _Problem(end, "the text ends in the middle")
    position = token.start_pos or 0
    if token.type in ("AND", "OR"):
        meeting = "AND and OR meet here: put parentheses around one of them"
        return _Problem(position, meeting)
    if token.type in ("NAME", "WORD") and token.upper() in ("AND", "OR", "NOT"):
        return _Problem(position, f"write {token.upper()} in capital letters")
    return _Problem(position, f'did not expect {str(token)[:40]!r}; a condition looks like tag = "vip"')


def _character(text: str, position: int) -> str:
    if text[position] in "\"'":
        return "this quotation mark is never closed"
    return f"did not expect {text[position]!r}; {_EXPECTED}"


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Reader(), propagate_positions=False)


@v_args(inline=True)
class _Reader(Transformer[Token, Tree]):
    """Makes the tree while the text is read, so that deep texts need no deep stack."""

    def conjunction(self, *parts: Tree) -> Tree:
        return And(parts)

    def disjunction(self, *parts: Tree) -> Tree:
        return Or(parts)

    def negation(self, inner: Tree) -> Tree:
        return _shallow(Not(inner))

    def nested(self, inner: Tree) -> Tree:
        return _shallow(inner)

    def value(self, token: Token) -> Token:
        return token

    def comparison(self, name: Token, comparator: Token, value: Token) -> Tree:
        kind, _, attribute = name.partition(".")
        if kind == "attributes" and attribute:
            return _attribute(name, attribute, comparator, value)
        if name not in _FIELDS:
            known = ", ".join([*_FIELDS, "attributes.NAME", "got(MAILING)", "sample(SIZE)"])
            raise _Problem(_at(name), f"there is no field {str(name)[:40]!r}; there are {known}")
        return _FIELDS[name](comparator, value)

    def call(self, name: Token, *arguments: Token | None) -> Tree:
        given = [one for one in arguments if one is not None]
        if name == "got" and given:
            return _got(name, given)
        if name == "sample" and 1 <= len(given) <= 2:
            size, *seed = [_integer(one) for one in given]
            return Atom(ClientFilter(sample=Sample(size, *seed)), _at(name))
        raise _Problem(_at(name), "expected got(MAILING), got(MAILING, STATUS, …), sample(SIZE) or sample(SIZE, SEED)")


def _at(token: Token) -> int:
    return token.start_pos or 0


def _depth(tree: Tree) -> int:
    match tree:
        case Atom():
            return 0
        case Not(inner):
            return 1 + _depth(inner)
        case And(parts) | Or(parts):
            return 1 + max(map(_depth, parts))


def _shallow(tree: Tree) -> Tree:
    """Return the tree. Raise _Problem for one that is nested too deep; it grows by one level at a time."""
    if _depth(tree) > MAX_NESTING:
        raise _Problem(_first(tree), f"is nested more than {MAX_NESTING} deep")
    return tree


def _first(tree: Tree) -> int:
    while not isinstance(tree, Atom):
        tree = tree.inner if isinstance(tree, Not) else tree.parts[0]
    return tree.position


# The single conditions.


def _text(token: Token) -> tuple[str, bool]:
    """Return what a value says, and whether a `*` at its end makes it a beginning."""
    if token.type == "STAR":
        return "", True
    if token.type == "WORD":
        return str(token).removesuffix("*"), token.endswith("*")
    characters = re.findall(r"\\.|[^\\]", token[1:-1], re.DOTALL)
    starred = characters[-1:] == ["*"]
    if "*" in (characters[:-1] if starred else characters):
        raise _Problem(_at(token), "a * is possible at the end only; write \\* for the character")
    return "".join(one[-1] for one in (characters[:-1] if starred else characters)), starred


def _plain(token: Token) -> str:
    text, starred = _text(token)
    if starred:
        raise _Problem(_at(token), "only phone and attributes are compared with a beginning (*)")
    return text


def _integer(token: Token) -> int:
    text = _plain(token)
    if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        raise _Problem(_at(token), "expected a whole number")
    return int(text)


def _equal(comparator: Token, what: Tree, name: str) -> Tree:
    """Return the condition or, for !=, its negation."""
    if comparator == "!=":
        return Not(what)
    if comparator != "=":
        raise _Problem(_at(comparator), f"{name} is compared with = or !=")
    return what


def _in(name: str, comparator: Token, token: Token) -> Tree:
    value: Any = _plain(token)
    value = normal_tag(value) if name == "tags" else value
    return _equal(comparator, Atom(ClientFilter().having(**{name: (value,)}), _at(token)), "this field")


def _id(comparator: Token, token: Token) -> Tree:
    if comparator == ":" and token.type == "STAR":
        return Atom(ClientFilter(), _at(token))
    return _equal(comparator, Atom(ClientFilter(client_ids=(_integer(token),)), _at(token)), "id")


def _phone(comparator: Token, token: Token) -> Tree:
    digits, starred = _text(token)
    if not starred:
        raise _Problem(_at(token), 'phones are compared by their beginning: write phone = "7903*"')
    return _equal(comparator, Atom(ClientFilter(phone_prefixes=(digits,)), _at(token)), "phone")


def _segment(comparator: Token, token: Token) -> Tree:
    return _equal(comparator, Atom(ClientFilter(segment=_plain(token)), _at(token)), "segment")


def _created(comparator: Token, token: Token) -> Tree:
    text = _plain(token)
    if not is_time(text):
        raise _Problem(_at(token), "expected a date such as 2026-11-29 or a time such as 2026-11-29T10:00:00Z")
    moment = datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00+00:00")
    since = Atom(ClientFilter(created_since=moment), _at(token))
    if comparator not in (">=", "<"):
        raise _Problem(_at(comparator), "create_time is compared with >= or <")
    return since if comparator == ">=" else Not(since)


_FIELDS: Mapping[str, Callable[[Token, Token], Tree]] = {
    "tag": lambda comparator, token: _in("tags", comparator, token),
    "operator_code": lambda comparator, token: _in("operator_codes", comparator, token),
    "timezone": lambda comparator, token: _in("timezones", comparator, token),
    "phone": _phone,
    "id": _id,
    "create_time": _created,
    "segment": _segment,
}
_OPS = {written: op for op, written in ORDERS.items()}


def _attribute(name: Token, attribute: str, comparator: Token, token: Token) -> Tree:
    text, starred = _text(token)

    def about(op: Op, *values: str) -> Atom:
        return Atom(ClientFilter(attribute_conditions=(AttributeCondition(attribute, op, values),)), _at(name))

    if comparator == ":":
        if token.type != "STAR":
            raise _Problem(_at(token), f"expected *, as in {name}:*, which is who has the attribute")
        return about(Op.EXISTS)
    if comparator in _OPS:
        if starred or not (is_number(text) or is_time(text)):
            kinds = "a number, a date such as 2026-11-29 or a time such as 2026-11-29T10:00:00Z"
            raise _Problem(_at(token), f"{comparator} compares with {kinds}: texts have no order")
        return about(_OPS[comparator], text)
    return _equal(comparator, about(Op.PREFIX if starred else Op.IN, text), str(name))


def _got(name: Token, arguments: Sequence[Token]) -> Tree:
    names = {str(one) for one in arguments[1:]}
    for one in arguments[1:]:
        if one not in Status.__members__:
            raise _Problem(_at(one), f"there is no status {str(one)[:40]!r}; there are {', '.join(Status.__members__)}")
    statuses = tuple(status for status in Status if status.name in names)
    return Atom(ClientFilter(only_mailings=(MailingCondition(_integer(arguments[0]), statuses),)), _at(name))


# From a tree to a filter.

_LISTS = ("tags", "operator_codes", "timezones", "client_ids", "phone_prefixes")
_SUMS = ("attribute_conditions", "exclude_mailings", "only_mailings", "none_of")
_MEETING = ("tags", "operator_codes", "client_ids")
_INVERSE = {Op.IN: Op.NOT_IN, Op.PREFIX: Op.NOT_PREFIX, Op.EXISTS: Op.MISSING}
_INVERSE |= {inverse: op for op, inverse in _INVERSE.items()}


def _built(tree: Tree) -> ClientFilter:
    if isinstance(tree, Atom):
        return tree.chosen
    if isinstance(tree, And):
        return _together([(_first(part), _built(part)) for part in tree.parts])
    parts = [_built(part) for part in (tree.parts if isinstance(tree, Or) else (tree.inner,))]
    if any(part.sample for part in parts):
        raise _Problem(_first(tree), "a sample is taken of the whole: combine sample(…) by AND alone")
    return _alternatives(parts) if isinstance(tree, Or) else _negated(parts[0])


def _set_fields(chosen: ClientFilter) -> list[str]:
    return [one.name for one in fields(chosen) if getattr(chosen, one.name)]


def _negated(chosen: ClientFilter) -> ClientFilter:
    match _set_fields(chosen):
        case ["only_mailings"] if len(chosen.only_mailings) == 1:
            return ClientFilter(exclude_mailings=chosen.only_mailings)
        case ["attribute_conditions"] if len(chosen.attribute_conditions) == 1:
            (one,) = chosen.attribute_conditions
            if one.op in _INVERSE:
                return ClientFilter(attribute_conditions=(replace(one, op=_INVERSE[one.op]),))
    return ClientFilter(none_of=(chosen,))


def _alternatives(parts: Sequence[ClientFilter]) -> ClientFilter:
    """Return who matches any: one list where all parts are of one field, else groups."""
    named = {tuple(_set_fields(part)) for part in parts}
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


def _together(parts: Sequence[tuple[int, ClientFilter]]) -> ClientFilter:
    return reduce(lambda left, right: (0, _both(left[1], right[1], right[0])), parts)[1]


def _both(left: ClientFilter, right: ClientFilter, position: int) -> ClientFilter:
    """Return who matches both. A field that both have and that holds one of them is asked by a double negation."""
    for name in _set_fields(right):
        ours, theirs = getattr(left, name), getattr(right, name)
        if not ours:
            left = left.having(**{name: theirs})
        elif name in _SUMS:
            left = left.having(**{name: (*ours, *theirs)})
        elif name in _MEETING:
            if not (shared := tuple(value for value in ours if value in theirs)):
                raise _Problem(position, "contradicts an earlier condition, so nobody matches")
            left = left.having(**{name: shared})
        elif name == "created_since":
            left = left.having(created_since=max(ours, theirs))
        elif name == "sample":
            raise _Problem(position, "a sample can be taken once only")
        else:
            inner = ClientFilter(none_of=(ClientFilter().having(**{name: theirs}),))
            left = left.having(none_of=(*left.none_of, inner))
    return left


# From a filter to a tree, and to its text.

_EVERYBODY = Atom(ClientFilter())


def _tree(chosen: ClientFilter) -> Tree:
    parts: list[Tree] = [_one_of(name, getattr(chosen, name)) for name in _LISTS if getattr(chosen, name)]
    equal = [AttributeCondition(name, Op.IN, (value,)) for name, value in chosen.attributes.items()]
    parts += [_about(one) for one in (*equal, *chosen.attribute_conditions)]
    parts += [Atom(ClientFilter(only_mailings=(one,))) for one in chosen.only_mailings]
    parts += [Not(Atom(ClientFilter(only_mailings=(one,)))) for one in chosen.exclude_mailings]
    for name in ("created_since", "segment", "sample"):
        if getattr(chosen, name):
            parts.append(Atom(ClientFilter().having(**{name: getattr(chosen, name)})))
    parts += [Not(_tree(group)) for group in chosen.none_of]
    parts += [Or(tuple(map(_tree, chosen.any_of)))] if chosen.any_of else []
    return And(tuple(parts)) if parts else _EVERYBODY


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


def _normal(tree: Tree) -> Tree:
    """Return the tree without double negations and groups of one or within their like, in the order of its text."""
    match tree:
        case Atom():
            return tree
        case Not(inner):
            return _inverse(_normal(inner))
        case And(parts):
            return _group(And, parts)
        case Or(parts):
            return _group(Or, parts)


def _group(kind: type[And] | type[Or], parts: Iterable[Tree]) -> Tree:
    flat: dict[str, Tree] = {}
    for part in map(_normal, parts):
        for one in part.parts if isinstance(part, kind) else (part,):
            flat.setdefault(_written(one), one)
    if len(flat) > 1 and kind is And:
        flat.pop(_written(_EVERYBODY), None)
    ordered = tuple(flat[text] for text in sorted(flat))
    return ordered[0] if len(ordered) == 1 else kind(ordered)


def _inverse(inner: Tree) -> Tree:
    if isinstance(inner, Not):
        return inner.inner
    if isinstance(inner, And) and all(isinstance(part, Not) for part in inner.parts):
        return _group(Or, [part.inner for part in inner.parts if isinstance(part, Not)])
    return Not(inner)


def _written(tree: Tree) -> str:
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
    return f"({_written(tree)})" if isinstance(tree, And | Or) else _written(tree)


def _condition(chosen: ClientFilter) -> str:
    match _set_fields(chosen):
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
