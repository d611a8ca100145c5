"""The journal as its readers see it: entries, what a reader chooses of them, and resume tokens.

A token is opaque to callers. It names the database, the query and, per bucket, the last
entry that was handed on, so that any replica goes on from there. Its checksum tells what
was never a token from what was one of another stream.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Protocol
from uuid import UUID

from dispatcher.model.states import Status
from server.domain.errors import InvalidResumeToken, ResumeTokenExpired
from server.domain.pagination import query_digest

Positions = tuple[int, ...]
"""Per bucket, the number of an entry; everything up to it is meant."""

_VERSION = b"\x01"
_EPOCH_SIZE = 8
_CHECK_SIZE = 8
_LARGEST = 2**63 - 1


@dataclass(slots=True, eq=False)
class Entry:
    """One entry of the journal: what a single transaction did to messages of one mailing.

    `statuses` runs parallel to `client_ids`, or has a single value for all of them.
    """

    bucket: int
    seq: int
    mailing_id: int
    at: datetime
    client_ids: Sequence[int]
    statuses: Sequence[int]
    forms: dict[frozenset[Status], tuple[bytes, ...]] = field(default_factory=dict)
    """What was made of it to be sent, by the statuses chosen: made once for all readers."""

    def changes(self, chosen: frozenset[Status]) -> Sequence[tuple[int, int]]:
        """Return client and status of each change to one of the `chosen` statuses, to any when empty."""
        if len(self.statuses) == 1:
            status = self.statuses[0]
            return [(client, status) for client in self.client_ids] if self._fits(status, chosen) else ()
        pairs = zip(self.client_ids, self.statuses, strict=True)
        return [pair for pair in pairs if self._fits(pair[1], chosen)]

    def count(self, chosen: frozenset[Status]) -> int:
        """Return how many changes there are to one of the `chosen` statuses."""
        if len(self.statuses) == 1:
            return len(self.client_ids) if self._fits(self.statuses[0], chosen) else 0
        return sum(self._fits(status, chosen) for status in self.statuses) if chosen else len(self.client_ids)

    @staticmethod
    def _fits(status: int, chosen: frozenset[Status]) -> bool:
        return not chosen or status in chosen


@dataclass(frozen=True, slots=True)
class ChangeQuery:
    """Which changes are meant: of one mailing or (0) of all, to some statuses or (empty) to any."""

    mailing_id: int = 0
    statuses: frozenset[Status] = frozenset()

    def digest(self) -> bytes:
        """Return what tells this query's tokens from others."""
        return query_digest("WatchMessages", self.mailing_id, sorted(self.statuses))


class Query(Protocol):
    """What a stream is asked for."""

    def digest(self) -> bytes:
        """Return what tells this query's tokens from others."""
        ...


class Tokens:
    """Makes and reads the tokens of one query in one database."""

    def __init__(self, epoch: UUID, buckets: int, query: Query) -> None:
        self._digest = query.digest()
        self._epoch = epoch.bytes[:_EPOCH_SIZE]
        self._head = _VERSION + self._digest + self._epoch
        self._buckets = buckets

    def encode(self, positions: Positions) -> str:
        """Return the token that goes on behind `positions`."""
        raw = self._head + _packed(positions)
        return urlsafe_b64encode(raw + _check(raw)).decode().rstrip("=")

    def decode(self, token: str) -> Positions:
        """Return the positions in `token`.

        Raise InvalidResumeToken for what is no token or one of another query, and
        ResumeTokenExpired for one of another database.
        """
        raw = _checked(token)
        digest_end = len(_VERSION) + len(self._digest)
        if raw[:digest_end] != self._head[:digest_end]:
            raise InvalidResumeToken
        if raw[digest_end : len(self._head)] != self._epoch:
            raise ResumeTokenExpired("was made before the database was replaced")
        positions = tuple(_unpacked(raw[len(self._head) :]))
        if len(positions) != self._buckets:
            raise InvalidResumeToken
        return positions


def _checked(token: str) -> bytes:
    """Return the bytes of a token without their checksum. Raise InvalidResumeToken."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (Base64Error, ValueError):
        raise InvalidResumeToken from None
    body, check = raw[:-_CHECK_SIZE], raw[-_CHECK_SIZE:]
    if _check(body) != check:
        raise InvalidResumeToken
    return body


def _check(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=_CHECK_SIZE, person=b"mailing-token").digest()


def _packed(numbers: Iterable[int]) -> bytes:
    """Seven bits to a byte, the lowest first; a set high bit says that more follow."""
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
