"""Lists by keyset: a page's token names the last key and the query it belongs to.

A token is opaque to callers. It carries a digest of the query, so that the token of another query
is rejected instead of returning a list with gaps.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import orjson

from server.domain.errors import InvalidPageToken, InvalidResumeToken

_DIGEST_SIZE = 12

Record = TypeVar("Record", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[Record]):
    """One page of a list. `next_token` is empty on the last one.

    `token_behind` returns the token of the page that begins behind one of the records.
    """

    records: tuple[Record, ...]
    token_behind: Callable[[Record], str]
    next_token: str = ""


def page_of(records: Sequence[Record], size: int, token_behind: Callable[[Record], str]) -> Page[Record]:
    """Return the page of the first `size` records; there is a next one if more were found."""
    page = tuple(records[:size])
    return Page(page, token_behind, token_behind(page[-1]) if len(records) > size else "")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The page to read: `size` records behind `token`, from the beginning when empty."""

    size: int
    token: str = ""


def query_digest(method: str, *parts: object) -> bytes:
    """Return a digest that identifies a query; `parts` are what JSON can hold."""
    text = orjson.dumps([method, *parts], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake2b(text, digest_size=_DIGEST_SIZE).digest()


def encode_token(digest: bytes, *key: int) -> str:
    """Return the token of the page behind `key` in the query of `digest`."""
    return token_of_bytes(digest + struct.pack(f">{len(key)}q", *key))


def decode_token(token: str, digest: bytes, first: tuple[int, ...]) -> tuple[int, ...]:
    """Return the key that `token` names, `first` when it is empty.

    Raise InvalidPageToken unless `encode_token` made it for `digest` and a key as long as `first`.
    """
    if not token:
        return first
    try:
        raw = bytes_of_token(token)
    except ValueError:
        raise InvalidPageToken from None
    if len(raw) != _DIGEST_SIZE + 8 * len(first) or raw[:_DIGEST_SIZE] != digest:
        raise InvalidPageToken
    key: tuple[int, ...] = struct.unpack(f">{len(first)}q", raw[_DIGEST_SIZE:])
    return key


def resumed_key(token: str, digest: bytes, first: tuple[int, ...]) -> tuple[int, ...]:
    """Return what `decode_token` does, for the resume token of an export. Raise InvalidResumeToken."""
    try:
        return decode_token(token, digest, first)
    except InvalidPageToken:
        raise InvalidResumeToken from None


def token_of_bytes(raw: bytes) -> str:
    """Return the token that carries `raw`, in letters that are safe anywhere."""
    return urlsafe_b64encode(raw).decode().rstrip("=")


def bytes_of_token(token: str) -> bytes:
    """Return the bytes that a token carries. Raise ValueError for what is no token."""
    return urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
