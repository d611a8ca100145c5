"""Lists by keyset: a page's token names the last key and the query it belongs to.

A token is opaque to callers. It carries a digest of the query, so that one query's token is
refused by another instead of giving a list with holes.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import orjson

from server.domain.errors import InvalidPageToken

_DIGEST_SIZE = 12

Record = TypeVar("Record", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[Record]):
    """One page of a list. `next_token` is empty on the last one."""

    records: tuple[Record, ...]
    next_token: str = ""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for: `size` entries behind `token`, from the beginning when empty."""

    size: int
    token: str = ""


def query_digest(method: str, *parts: object) -> bytes:
    """Return what tells a list's query from others; `parts` are what JSON can hold."""
    text = orjson.dumps([method, *parts], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake2b(text, digest_size=_DIGEST_SIZE).digest()


def encode_token(digest: bytes, *key: int) -> str:
    """Return the token of the page behind `key` in the query of `digest`."""
    return urlsafe_b64encode(digest + struct.pack(f">{len(key)}q", *key)).decode().rstrip("=")


def decode_token(token: str, digest: bytes, first: tuple[int, ...]) -> tuple[int, ...]:
    """Return the key that `token` names, `first` when it is empty.

    Raise InvalidPageToken for anything that `encode_token` did not make for `digest` and a
    key as long as `first`.
    """
    if not token:
        return first
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (Base64Error, ValueError):
        raise InvalidPageToken from None
    if len(raw) != _DIGEST_SIZE + 8 * len(first) or raw[:_DIGEST_SIZE] != digest:
        raise InvalidPageToken
    key: tuple[int, ...] = struct.unpack(f">{len(first)}q", raw[_DIGEST_SIZE:])
    return key
