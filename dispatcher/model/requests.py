"""How the requests of an endpoint look: described in its configuration, compiled once, filled in per message.

`compile_request` checks a description as a whole and raises DescriptionError, which names the key. A
RequestForm is immutable and does no I/O: a changed secret makes a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from dispatcher.model.placeholders import (
    BASE,
    Composed,
    Field,
    Leaf,
    Piece,
    PlaceholderError,
    Values,
    compose,
    in_form,
    in_header,
    in_json,
    in_path,
    in_query,
    parse_leaf,
)
from dispatcher.model.request_batches import BatchForm, BatchText

__all__ = ["DescriptionError", "HttpRequest", "RequestForm", "RequestText", "compile_request"]

METHODS = ("POST", "PUT", "PATCH", "GET")
SEED_BODY: Mapping[str, object] = {"id": "{id:int}", "phone": "{phone:int}", "text": "{text}"}
"""The body of a request that is not described."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "expect"})
_PLAIN = re.compile(r"[\x21-\x7e]*")


class DescriptionError(ValueError):
    """A description that cannot work. `key` is the path of the key, `str()` of it what is wrong there."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


class HttpRequest(NamedTuple):
    """One request: its target (path and query), the headers of the description, and its body."""

    target: bytes
    headers: tuple[tuple[str, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class RequestText:
    """The description of a request as it is written, with placeholders.

    `headers` include the one of the credentials. `constants` are the values of `secret.NAME` and of
    `receipt_url`. At most one of `json` and `form` is set.
    """

    url: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, object] = field(default_factory=dict)
    json: object = None
    form: Mapping[str, object] | None = None
    requires: Sequence[str] = ()
    batch: BatchText | None = None
    constants: Mapping[str, str | None] = field(default_factory=dict, repr=False)


class RequestForm:
    """A compiled description. `needs` names the values that a message needs beside id, phone and text.

    They are `title` and `attributes.NAME`. `requires` are the attributes without which a client has no address.
    With a `batch` a request may carry several messages.
    """

    batch: BatchForm | None = None

    def __init__(self, text: RequestText, parts: _Parts) -> None:
        self.method = text.method
        self.requires = tuple(text.requires)
        self.needs = parts.needs
        self.batch = parts.batch
        self.content_type = parts.content_type
        self.header_names = tuple(name for name, _ in parts.headers)
        self._target = parts.target
        self._headers = parts.headers
        self._body = parts.body

    def render(self, message_id: int, phone: str, text: str, values: Sequence[str] = ()) -> HttpRequest:
        """Return the request for one message; `values` are those of `needs`, in their order."""
        filled = (str(message_id), phone, text, *values)
        headers = tuple([(name, value(filled)) for name, value in self._headers])
        return HttpRequest(self._target(filled), headers, self._body(filled))

    def render_batch(self, messages: Sequence[Values]) -> HttpRequest:
        """Return one request for several messages: of each its id, phone and text, then the values of `needs`."""
        assert self.batch is not None
        headers = tuple([(name, value(())) for name, value in self._headers])
        return HttpRequest(self._target(()), headers, self.batch.body(messages))

    def values_of(self, title: str, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """Return the values of `needs` for a client; one that is missing is empty."""
        return tuple([title if need == "title" else attributes.get(need[11:]) or "" for need in self.needs])

    def has_address(self, attributes: Mapping[str, str]) -> bool:
        """Return whether a client has all attributes that the endpoint requires."""
        return all(attributes.get(name) for name in self.requires)


class _Parts(NamedTuple):
    needs: tuple[str, ...]
    content_type: str
    target: Composed
    headers: tuple[tuple[str, Composed], ...]
    body: Composed
    batch: BatchForm | None


def compile_request(text: RequestText) -> RequestForm:
    """Return the form of a description. Raise DescriptionError."""
    body = _body_of(text)
    headers = {name: _leaf(f"headers.{name}", _header(name, value), text) for name, value in text.headers.items()}
    url = _leaf("url", _url(text.url), text)
    query = list(_pairs("query", text.query, text))
    if _appends_id(text, url):
        url = (*url, Field("id"))
    fields = list(_fields([url, *headers.values(), *(leaf for _, leaf in query), *body.leaves]))
    if text.batch is not None:
        _same_for_all(url, headers, query)
    if not any(one.is_of_person for one in fields):
        where = "json" if text.json is not None else "form" if text.form is not None else "url"
        raise DescriptionError(where, "names nobody: the request needs {phone} or {attributes.NAME}")
    needs = tuple(dict.fromkeys(one.name for one in fields if one.name not in BASE))
    names = (*BASE, *needs)
    pieces = body.write(names)
    return RequestForm(
        text,
        _Parts(
            needs,
            body.content_type,
            _target(url, query, names),
            tuple((name, Composed(compose(leaf, in_header, names))) for name, leaf in headers.items()),
            Composed(pieces),
            None if text.batch is None else _batch_form(text.batch, pieces),
        ),
    )


def _same_for_all(url: Leaf, headers: Mapping[str, Leaf], query: Sequence[tuple[str, Leaf]]) -> None:
    """Raise DescriptionError where a request for many messages would say something of one of them outside its body."""
    places = [("url", url), *((f"headers.{name}", leaf) for name, leaf in headers.items())]
    for key, leaf in [*places, *((f"query.{name}", leaf) for name, leaf in query)]:
        if any(_fields([leaf])):
            raise DescriptionError(key, "has a placeholder of one message, but with batch a request carries many")


def _batch_form(text: BatchText, pieces: Sequence[Piece]) -> BatchForm:
    """Return the form of a body whose pieces hold its item, itself compiled, as one of them."""
    found = [index for index, piece in enumerate(pieces) if isinstance(piece, Composed)]
    around = [piece for piece in pieces if not isinstance(piece, Composed)]
    if not all(isinstance(piece, bytes) for piece in around):
        raise DescriptionError("json", "has a placeholder of one message outside of batch.items")
    [at] = found
    item = pieces[at]
    assert isinstance(item, Composed)
    head, tail = (
        b"".join(part for part in parts if isinstance(part, bytes)) for parts in (pieces[:at], pieces[at + 1 :])
    )
    return BatchForm(text, head, item, tail)


def _leaf(key: str, value: str, text: RequestText) -> Leaf:
    try:
        return parse_leaf(value, text.constants)
    except PlaceholderError as error:
        raise DescriptionError(key, str(error)) from None


def _fields(leaves: Sequence[Leaf]) -> Iterator[Field]:
    return (part for leaf in leaves for part in leaf if isinstance(part, Field))


# The URL.


def _url(url: str) -> str:
    """Return the path and query of a URL whose host holds no placeholder."""
    rest = url.partition("://")[2]
    host = re.split(r"[/?]", rest, maxsplit=1)[0]
    if "{" in host or "{" in url.partition("://")[0]:
        raise DescriptionError("url", "has a placeholder before its path: the host must be one for all messages")
    if not _PLAIN.fullmatch(url):
        raise DescriptionError("url", "must be ASCII without spaces and control characters (percent-encode others)")
    path = rest[len(host) :]
    return path if path.startswith("/") else f"/{path}"


def _appends_id(text: RequestText, url: Leaf) -> bool:
    """Return whether the id follows the URL, which names nothing itself.

    Where the request is described it only does so if the URL asks for more by its last character.
    """
    if any(isinstance(part, Field) for part in url) or "{secret." in text.url or text.batch is not None:
        return False
    described = text.json is not None or text.form is not None or bool(text.query)
    return not described or text.url.endswith(("/", "="))


def _target(url: Leaf, query: Sequence[tuple[str, Leaf]], names: Sequence[str]) -> Composed:
    """Return the target: what the file says of the URL stays as it is, its values are escaped."""
    pieces, escape = list[Piece](), in_path
    for part in url:
        if isinstance(part, str):
            pieces.append(part.encode("ascii"))
            escape = in_query if "?" in part else escape
        else:
            pieces += compose((part,), escape, names)
    separator = b"&" if escape is in_query else b"?"
    for name, leaf in query:
        pieces += [separator + in_query(name) + b"=", *compose(leaf, in_query, names)]
        separator = b"&"
    return Composed(pieces)


def _pairs(key: str, table: Mapping[str, object], text: RequestText) -> Iterator[tuple[str, Leaf]]:
    """Yield the names and leaves of a query or form; a list is a name given several times."""
    for name, value in table.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict | list):
                raise DescriptionError(f"{key}.{name}", "should be a text, a number, true or false, or a list of these")
            yield name, _leaf(f"{key}.{name}", one if isinstance(one, str) else orjson.dumps(one).decode(), text)


def _header(name: str, value: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise DescriptionError(f"headers.{name[:60]}", "is no name of a header")
    if name.lower() in _OURS:
        raise DescriptionError(f"headers.{name}", "is made by the service itself")
    if not value.isprintable():
        raise DescriptionError(f"headers.{name}", "must not hold control characters")
    return value


# The body.

_Tree = object
"""JSON with a Leaf in place of every text."""


class _Body(NamedTuple):
    """A body before it is compiled; `write` returns its pieces, given the names of all values."""

    content_type: str
    leaves: Sequence[Leaf]
    write: Callable[[Sequence[str]], list[Piece]]


def _body_of(text: RequestText) -> _Body:
    if text.batch is not None and text.json is None:
        raise DescriptionError("batch", "needs json, whose list it fills")
    if text.form is not None:
        if text.json is not None:
            raise DescriptionError("form", "stands beside json, one should go")
        pairs = list(_pairs("form", text.form, text))
        leaves = [leaf for _, leaf in pairs]
        return _Body("application/x-www-form-urlencoded", leaves, lambda names: _written_form(pairs, names))
    if text.json is None and (text.method == "GET" or text.query):
        return _Body("", (), lambda _: [])
    tree = _parsed("json", SEED_BODY if text.json is None else text.json, text)
    if text.batch is not None:
        tree = _with_item(tree, text.batch.items.tokens)
    return _Body("application/json", _leaves(tree), lambda names: _written_json(tree, names))


def _parsed(key: str, value: object, text: RequestText) -> _Tree:
    match value:
        case str():
            return _leaf(key, value, text)
        case dict():
            return {name: _parsed(f"{key}.{name}", one, text) for name, one in value.items()}
        case list():
            return [_parsed(f"{key}[{index}]", one, text) for index, one in enumerate(value)]
        case _:
            return value


class _Item(NamedTuple):
    """The part of a body that is there for each message."""

    tree: _Tree


def _with_item(tree: _Tree, tokens: Sequence[str]) -> _Tree:
    """Return the tree with the element marked of the list to which the tokens of a pointer lead."""
    if not tokens:
        if not (isinstance(tree, list) and len(tree) == 1):
            raise DescriptionError("batch.items", "should point to a list in json with one element, for one message")
        return [_Item(tree[0])]
    inner: dict[str, _Tree] = tree if isinstance(tree, dict) else {}
    if tokens[0] not in inner:
        raise DescriptionError("batch.items", "points to nothing in json")
    return {**inner, tokens[0]: _with_item(inner[tokens[0]], tokens[1:])}


def _leaves(tree: _Tree) -> list[Leaf]:
    match tree:
        case _Item():
            return _leaves(tree.tree)
        case tuple():
            return [tree]
        case dict():
            return [leaf for one in tree.values() for leaf in _leaves(one)]
        case list():
            return [leaf for one in tree for leaf in _leaves(one)]
        case _:
            return []


def _written_form(pairs: Sequence[tuple[str, Leaf]], names: Sequence[str]) -> list[Piece]:
    pieces = list[Piece]()
    for name, leaf in pairs:
        pieces += [b"&" if pieces else b"", in_form(name) + b"=", *compose(leaf, in_form, names)]
    return pieces


def _written_json(tree: _Tree, names: Sequence[str]) -> list[Piece]:
    match tree:
        case _Item():
            return [Composed(_written_json(tree.tree, names))]
        case tuple():
            return _written_leaf(tree, names)
        case dict():
            members = [[orjson.dumps(name) + b":", *_written_json(one, names)] for name, one in tree.items()]
            return [b"{", *_separated(members), b"}"]
        case list():
            return [b"[", *_separated([_written_json(one, names) for one in tree]), b"]"]
        case _:
            return [orjson.dumps(tree)]


def _written_leaf(leaf: Leaf, names: Sequence[str]) -> list[Piece]:
    """Return a JSON string; a leaf that is nothing but a number in the form `int` is a bare number."""
    if len(leaf) == 1 and isinstance(leaf[0], Field) and leaf[0].form == "int":
        return compose(leaf, in_json, names)
    return [b'"', *compose(leaf, in_json, names), b'"']


def _separated(members: Sequence[list[Piece]]) -> list[Piece]:
    return [piece for index, member in enumerate(members) for piece in ([b","] if index else []) + member]
