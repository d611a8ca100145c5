"""The numbers of clients, 2^28 of them in 16 buckets: an id is number * buckets + bucket, half of a message's id.

The sequence in the database ends there, so ids cannot collide. Numbers are taken for clients that are
really added: what a failed import took is used by the next import of this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import asyncpg

from server.domain.errors import ClientNumbersExhausted
from server.storage.queries import load_queries

_SQL = load_queries("client_numbers.sql")


class ClientNumbers:
    """Takes numbers from the sequence, first those that failed imports gave back."""

    def __init__(self) -> None:
        self._spare: list[range] = []

    async def take(self, connection: asyncpg.Connection, count: int) -> list[range]:
        """Return ranges with `count` numbers in all. Raise ClientNumbersExhausted, and then take none."""
        numbers = self._take_spare(count)
        wanted = count - sum(map(len, numbers))
        try:
            return numbers + await _take_new(connection, wanted) if wanted else numbers
        except BaseException:
            self.give_back(numbers)
            raise

    def give_back(self, numbers: Iterable[range]) -> None:
        """Keep numbers, which no client can have by now, for the next import."""
        self._spare.extend(numbers)

    def _take_spare(self, count: int) -> list[range]:
        taken = []
        while self._spare and count > 0:
            one = self._spare.pop()
            taken.append(one[:count])
            if rest := one[count:]:
                self._spare.append(rest)
            count -= len(taken[-1])
        return taken


async def _take_new(connection: asyncpg.Connection, count: int) -> list[range]:
    # Asked before: numbers that are taken in vain are gone.
    numbers = await connection.fetchrow(*_SQL["count_numbers_used"].bind())
    if numbers["used"] + count > numbers["most"]:
        raise ClientNumbersExhausted
    with exhaustion():
        rows = await connection.fetch(*_SQL["take_numbers"].bind(count=count))
    return [range(row["first"], row["last"] + 1) for row in rows]


@contextmanager
def exhaustion() -> Iterator[None]:
    """Raise ClientNumbersExhausted where the sequence has no more numbers."""
    try:
        yield
    except asyncpg.SequenceGeneratorLimitExceededError:
        raise ClientNumbersExhausted from None


async def share_used(connection: asyncpg.Connection) -> float:
    """Return the share of all client numbers that were given, 0 to 1."""
    numbers = await connection.fetchrow(*_SQL["count_numbers_used"].bind())
    return float(numbers["used"] / numbers["most"])
