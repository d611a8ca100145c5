"""Resume tokens: the position of a stream in entries that are numbered by bucket.

A token is opaque to callers. It names the database and its timeline, the query and, per bucket, the last entry that
was delivered, so that any replica can resume there. Its checksum distinguishes an invalid token
from one of another stream. Both the change feed and the event log are numbered so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol
from uuid import UUID

from server.domain.errors import InvalidResumeToken, ResumeTokenExpired
from server.domain.pagination import bytes_of_token, token_of_bytes

Positions = tuple[int, ...]
"""Per bucket, the number of an entry: the position behind it."""

_VERSION = b"\x01"
_EPOCH_SIZE = 8
_LARGEST_EPOCH = 2**64 - 1
_CHECK_SIZE = 8
_LARGEST = 2**63 - 1


@dataclass(slots=True)
class Place:
    """How far a stream is: the token behind what its caller has got, '' as long as there is none."""

    token: str = ""


_place: ContextVar[Place | None] = ContextVar("place", default=None)


def begin_place() -> Place:
    """Return the place of the stream that begins here; `reached` moves it."""
    place = Place()
    _place.set(place)
    return place


def reached(token: str) -> None:
    """Note the token of what was given to the caller of the current stream."""
    place = _place.get()
    if place is not None:
        place.token = token


class Query(Protocol):
    """What a stream reads."""

    def digest(self) -> bytes:
        """Return a digest that identifies this query in tokens."""
        ...


class Tokens:
    """Encodes and decodes the tokens of one query in one database."""

    def __init__(self, epoch: UUID, buckets: int, query: Query) -> None:
        self._stream = _VERSION + query.digest()
        self._epoch = int.from_bytes(epoch.bytes[:_EPOCH_SIZE])
        self._buckets = buckets

    def encode(self, positions: Positions, timeline: int) -> str:
        """Return the token that resumes behind `positions` of a timeline of the server."""
        raw = self._stream + self._history(timeline) + _packed(positions)
        return token_of_bytes(raw + _check(raw))

    def decode(self, token: str, timeline: int) -> Positions:
        """Return the positions in `token`, for a server that is on `timeline`.

        Raise InvalidResumeToken for an invalid token or one of another query, and
        ResumeTokenExpired for one of another database or timeline.
        """
        raw = _checked(token)
        stream_end = len(self._stream)
        if raw[:stream_end] != self._stream:
            raise InvalidResumeToken
        if raw[stream_end : stream_end + _EPOCH_SIZE] != self._history(timeline):
            raise ResumeTokenExpired("was made before the database was replaced, or a standby took over")
        positions = tuple(_unpacked(raw[stream_end + _EPOCH_SIZE :]))
        if len(positions) != self._buckets:
            raise InvalidResumeToken
        return positions

    def _history(self, timeline: int) -> bytes:
        """Return what names the database as it is: each promotion of a standby begins another timeline."""
        return ((self._epoch + timeline - 1) & _LARGEST_EPOCH).to_bytes(_EPOCH_SIZE)


@dataclass(frozen=True, slots=True)
class Numbered:
    """Numbered entries, in the words of their errors: `where` they are kept, and `what` they are."""

    where: str
    what: str

    def check(self, positions: Positions, floors: Positions, heads: Positions) -> None:
        """Raise ResumeTokenExpired unless all behind `positions` is kept, and all before them was written.

        Per bucket, `floors` are the last numbers removed and `heads` the last ones given.
        """
        if any(mine < floor for mine, floor in zip(positions, floors, strict=True)):
            raise ResumeTokenExpired(f"is older than the {self.where} that is kept")
        if any(mine > head for mine, head in zip(positions, heads, strict=True)):
            raise self.lost()

    def lost(self) -> ResumeTokenExpired:
        """Return the error of a stream that is ahead of a database which went back in time."""
        return ResumeTokenExpired(f"names {self.what} that the database has lost")


CHANGE_FEED = Numbered("change feed", "changes")
EVENT_LOG = Numbered("event log", "entries")


def _checked(token: str) -> bytes:
    """Return the bytes of a token without their checksum. Raise InvalidResumeToken."""
    try:
        raw = bytes_of_token(token)
    except ValueError:
        raise InvalidResumeToken from None
    body, check = raw[:-_CHECK_SIZE], raw[-_CHECK_SIZE:]
    if _check(body) != check:
        raise InvalidResumeToken
    return body


def _check(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=_CHECK_SIZE, person=b"mailing-token").digest()


def _packed(numbers: Iterable[int]) -> bytes:
    """Return the numbers with seven bits to a byte, the lowest first; a set high bit means that more follow."""
    packed = bytearray()
    for number in numbers:
        while number > 0x7F:
            packed.append(number & 0x7F | 0x80)
            number >>= 7
        packed.append(number)
    return bytes(packed)


def _unpacked(packed: bytes) -> Iterable[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if number > _LARGEST:
                raise InvalidResumeToken
            yield number
            number = shift = 0
    if shift:
        raise InvalidResumeToken
