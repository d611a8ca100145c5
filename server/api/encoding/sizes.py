"""Cuts what a response carries by bytes: at most 1 MiB a message, unless one record alone is larger.

gRPC's own limit of what a caller receives is 4 MiB in most languages, so no caller has to raise it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TypeVar

from google.protobuf.message import Message as ProtoMessage

from server.domain.pagination import Page

Record = TypeVar("Record")
Encoded = TypeVar("Encoded", bound=ProtoMessage)

MAX_RESPONSE_BYTES = (1 << 20) - 1024
"""The bytes of all records of one response; the rest is left for its other fields."""

_FRAME = 6
"""Bytes before a record of up to 256 MiB: its tag and its length."""


def fitted(page: Page[Record], encode: Callable[[Record], Encoded]) -> tuple[list[Encoded], str]:
    """Return as many records of a page as fit, at least one, and the token of the page behind them."""
    encoded = [encode(record) for record in page.records]
    sizes = accumulate(one.ByteSize() + _FRAME for one in encoded)
    fitting = sum(size <= MAX_RESPONSE_BYTES for size in sizes) or 1
    if fitting >= len(encoded):
        return encoded, page.next_token
    return encoded[:fitting], page.token_behind(page.records[fitting - 1])


def pieces(records: Iterable[Encoded], most: int) -> Iterator[list[Encoded]]:
    """Yield the records in lists of at most `most`, each of which fits."""
    piece: list[Encoded] = []
    size = 0
    for record in records:
        more = record.ByteSize() + _FRAME
        if piece and (len(piece) == most or size + more > MAX_RESPONSE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(record)
        size += more
    if piece:
        yield piece
