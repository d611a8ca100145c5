"""Texts of a configuration file with placeholders, compiled once and filled in for each message.

A leaf is one text of the file, such as `Dear {attributes.name}`; what its values may do is decided by where
it stands: in JSON, a form, the path or query of a URL, or a header. Each place escapes them, so no value can
become structure. `{{` and `}}` are literal braces. Does no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, quote_plus

import orjson

__all__ = [
    "BASE",
    "Composed",
    "Constant",
    "Escape",
    "Field",
    "Leaf",
    "Piece",
    "PlaceholderError",
    "compose",
    "in_form",
    "in_header",
    "in_json",
    "in_path",
    "in_query",
    "national",
    "parse_leaf",
]

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ATTRIBUTE = re.compile(r"attributes\.\w{1,64}")
_SECRET = re.compile(r"secret\.(\w{1,64})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORMS = {
    "id": ("", "int"),
    "phone": ("", "int", "plus", "national"),
    "text": ("",),
    "title": ("",),
    "receipt_url": ("",),
}
_KNOWN = (
    "{id}, {id:int}, {phone}, {phone:int}, {phone:plus}, {phone:national}, {text}, {title}, {attributes.NAME}, "
    "{receipt_url} and {secret.NAME}"
)

BASE = ("id", "phone", "text")
"""The values that every message has, in their order; further ones follow."""


class PlaceholderError(ValueError):
    """A text with a placeholder that is none. `str()` of it is the end of a sentence."""


class Field(NamedTuple):
    """A value that differs by message: its name, and the form it is wanted in ('' as it is)."""

    name: str
    form: str = ""

    @property
    def is_of_person(self) -> bool:
        """Whether it says whom the message is for."""
        return self.name == "phone" or self.name.startswith("attributes.")


class Constant(NamedTuple):
    """A value that is the same for all messages: a secret, or an address of ours."""

    value: str


Leaf = tuple[str | Constant | Field, ...]


def parse_leaf(text: str, constants: Mapping[str, str | None]) -> Leaf:
    """Return the parts of a text; `constants` are put in at once, by `secret.NAME` and `receipt_url`.

    A constant that is None is known and not configured. Raise PlaceholderError.
    """
    parts, at = list[str | Constant | Field](), 0
    for token in _TOKEN.finditer(text):
        parts.append(text[at : token.start()])
        at = token.end()
        if token[0] in ("{{", "}}"):
            parts.append(token[0][0])
        elif token[1] is None:
            raise PlaceholderError(f"has a single {token[0]!r}: write {token[0] * 2!r} for a literal brace")
        else:
            parts += _placeholder(token[1], constants)
    return tuple(part for part in [*parts, text[at:]] if part)


def _placeholder(name: str, constants: Mapping[str, str | None]) -> Leaf:
    field, _, form = name.partition(":")
    if _SECRET.fullmatch(name) or name == "receipt_url":
        value = constants.get(name)
        if value is None:
            raise PlaceholderError(_missing(name, name in constants))
        return (Constant(value), Field("id")) if name == "receipt_url" else (Constant(value),)
    if form in _FORMS.get(field, ()) or _ATTRIBUTE.fullmatch(name):
        return (Field(field, form),)
    raise PlaceholderError(f"has an unknown placeholder {{{name[:60]}}}: there are {_KNOWN}")


def _missing(name: str, is_off: bool) -> str:
    if name == "receipt_url":
        why = "MAILING_RECEIPTS_URL is not set" if is_off else "this endpoint has no receipts"
        return f"has {{receipt_url}}, but {why}"
    return f"has {{{name}}}, but secrets has no {name.removeprefix('secret.')}"


# Phone numbers.

_ONE_DIGIT = ("1", "7")
_TWO_DIGITS = frozenset(
    map(
        str,
        (
            20,
            27,
            *range(30, 35),
            36,
            39,
            40,
            41,
            *range(43, 50),
            *range(51, 59),
            *range(60, 67),
            81,
            82,
            84,
            86,
            *range(90, 96),
            98,
        ),
    )
)
"""Country codes by ITU-T E.164: all others have three digits."""


def national(phone: str) -> str:
    """Return the digits of an E.164 number without its country code."""
    if phone.startswith(_ONE_DIGIT):
        return phone[1:]
    return phone[2:] if phone[:2] in _TWO_DIGITS else phone[3:]


_SHAPES: Mapping[str, Callable[[str], str] | None] = {
    "": None,
    "int": None,
    "plus": lambda phone: f"+{phone}",
    "national": national,
}


# Places.

Escape = Callable[[str], bytes]
"""Makes a value harmless for the place where it stands."""


def in_json(value: str) -> bytes:
    """Return the inside of a JSON string."""
    try:
        return orjson.dumps(value)[1:-1]
    except TypeError:  # half of a surrogate pair
        return orjson.dumps(_whole(value))[1:-1]


def in_form(value: str) -> bytes:
    """Return a value of a form (application/x-www-form-urlencoded)."""
    return quote_plus(_whole(value), safe="*").encode("ascii")


def in_path(value: str) -> bytes:
    """Return a segment of a path, or a part of one; it cannot lead elsewhere."""
    quoted = quote(_whole(value), safe=":@*")
    return (quoted.replace(".", "%2E") if quoted in (".", "..") else quoted).encode("ascii")


def in_query(value: str) -> bytes:
    """Return a value of a URL's query."""
    return quote(_whole(value), safe="*").encode("ascii")


def in_header(value: str) -> bytes:
    """Return a header's value, or a part of one; control characters become spaces."""
    return _CONTROL.sub(" ", _whole(value)).encode("utf-8")


def _whole(value: str) -> str:
    """Return the text with surrogates that no UTF-8 can hold replaced."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


# Compiled texts.

Values = Sequence[str]
"""The values of a message: BASE, then the further ones."""

Piece = bytes | Callable[[Values], bytes]
"""What is the same for all messages, or what makes it of the values of one."""


class Composed:
    """Bytes with gaps, made by `compose`; called with the values of a message it returns the bytes."""

    __slots__ = ("_constant", "_pieces")

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = _merged(pieces)
        self._constant = self._pieces[0] if len(self._pieces) == 1 and isinstance(self._pieces[0], bytes) else None

    def __call__(self, values: Values) -> bytes:
        """Return the bytes for one message."""
        if self._constant is not None:
            return self._constant
        return b"".join([piece if type(piece) is bytes else piece(values) for piece in self._pieces])  # type: ignore[operator]


def compose(leaf: Leaf, escape: Escape, names: Sequence[str]) -> list[Piece]:
    """Return the pieces of a leaf in a place; `names` are those of all values, in their order."""
    return [_piece(part, escape, names) for part in leaf]


def _piece(part: str | Constant | Field, escape: Escape, names: Sequence[str]) -> Piece:
    if isinstance(part, Field):
        return _gap(part, escape, names.index(part.name))
    return escape(part.value if isinstance(part, Constant) else part)


def _gap(field: Field, escape: Escape, index: int) -> Callable[[Values], bytes]:
    shape = _SHAPES[field.form]
    if shape is None:
        return lambda values: escape(values[index])
    return lambda values: escape(shape(values[index]))


def _merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    merged: list[Piece] = []
    for piece in pieces:
        if merged and isinstance(piece, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged) or (b"",)
