"""Reads the text of a filter into a tree. Every problem has its position and a sentence that says what to write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from dispatcher.model.states import Status
from server.domain.clients import normal_tag
from server.domain.filter_tree import And, Atom, Not, Or, Problem, Tree, first_position
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


def parsed(text: str) -> Tree:
    """Return the tree of a text. Raise Problem."""
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedToken as error:
        raise _unexpected(error.token, len(text)) from None
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        raise Problem(position, _character(text, position)) from None
    checked: Tree = tree
    return checked


_EXPECTED = 'expected a condition such as tag = "vip"'


def _unexpected(token: Token, end: int) -> Problem:
    if token.type == "$END":
        return Problem(end, "the text ends in the middle")
    position = token.start_pos or 0
    if token.type in ("AND", "OR"):
        meeting = "AND and OR meet here: put parentheses around one of them"
        return Problem(position, meeting)
    if token.type in ("NAME", "WORD") and token.upper() in ("AND", "OR", "NOT"):
        return Problem(position, f"write {token.upper()} in capital letters")
    return Problem(position, f'did not expect {str(token)[:40]!r}; a condition looks like tag = "vip"')


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
            raise Problem(_at(name), f"there is no field {str(name)[:40]!r}; there are {known}")
        return _FIELDS[name](comparator, value)

    def call(self, name: Token, *arguments: Token | None) -> Tree:
        given = [one for one in arguments if one is not None]
        if name == "got" and given:
            return _got(name, given)
        if name == "sample" and 1 <= len(given) <= 2:
            size, *seed = [_integer(one) for one in given]
            return Atom(ClientFilter(sample=Sample(size, *seed)), _at(name))
        raise Problem(_at(name), "expected got(MAILING), got(MAILING, STATUS, …), sample(SIZE) or sample(SIZE, SEED)")


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
    """Return the tree. Raise Problem for one that is nested too deep; it grows by one level at a time."""
    if _depth(tree) > MAX_NESTING:
        raise Problem(first_position(tree), f"is nested more than {MAX_NESTING} deep")
    return tree


def _text(token: Token) -> tuple[str, bool]:
    """Return what a value says, and whether a `*` at its end makes it a beginning."""
    if token.type == "STAR":
        return "", True
    if token.type == "WORD":
        return str(token).removesuffix("*"), token.endswith("*")
    characters = re.findall(r"\\.|[^\\]", token[1:-1], re.DOTALL)
    starred = characters[-1:] == ["*"]
    if "*" in (characters[:-1] if starred else characters):
        raise Problem(_at(token), "a * is possible at the end only; write \\* for the character")
    return "".join(one[-1] for one in (characters[:-1] if starred else characters)), starred


def _plain(token: Token) -> str:
    text, starred = _text(token)
    if starred:
        raise Problem(_at(token), "only phone and attributes are compared with a beginning (*)")
    return text


def _integer(token: Token) -> int:
    text = _plain(token)
    if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        raise Problem(_at(token), "expected a whole number")
    return int(text)


def _equal(comparator: Token, what: Tree, name: str) -> Tree:
    """Return the condition or, for !=, its negation."""
    if comparator == "!=":
        return Not(what)
    if comparator != "=":
        raise Problem(_at(comparator), f"{name} is compared with = or !=")
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
        raise Problem(_at(token), 'phones are compared by their beginning: write phone = "7903*"')
    return _equal(comparator, Atom(ClientFilter(phone_prefixes=(digits,)), _at(token)), "phone")


def _segment(comparator: Token, token: Token) -> Tree:
    return _equal(comparator, Atom(ClientFilter(segment=_plain(token)), _at(token)), "segment")


def _created(comparator: Token, token: Token) -> Tree:
    text = _plain(token)
    if not is_time(text):
        raise Problem(_at(token), "expected a date such as 2026-11-29 or a time such as 2026-11-29T10:00:00Z")
    moment = datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00+00:00")
    since = Atom(ClientFilter(created_since=moment), _at(token))
    if comparator not in (">=", "<"):
        raise Problem(_at(comparator), "create_time is compared with >= or <")
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
            raise Problem(_at(token), f"expected *, as in {name}:*, which is who has the attribute")
        return about(Op.EXISTS)
    if comparator in _OPS:
        if starred or not (is_number(text) or is_time(text)):
            kinds = "a number, a date such as 2026-11-29 or a time such as 2026-11-29T10:00:00Z"
            raise Problem(_at(token), f"{comparator} compares with {kinds}: texts have no order")
        return about(_OPS[comparator], text)
    return _equal(comparator, about(Op.PREFIX if starred else Op.IN, text), str(name))


def _got(name: Token, arguments: Sequence[Token]) -> Tree:
    names = {str(one) for one in arguments[1:]}
    for one in arguments[1:]:
        if one not in Status.__members__:
            raise Problem(_at(one), f"there is no status {str(one)[:40]!r}; there are {', '.join(Status.__members__)}")
    statuses = tuple(status for status in Status if status.name in names)
    return Atom(ClientFilter(only_mailings=(MailingCondition(_integer(arguments[0]), statuses),)), _at(name))
