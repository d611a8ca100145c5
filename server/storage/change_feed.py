"""The journal in the database: read in order, and forgotten by age.

Reading takes no lock. Forgetting locks nothing that settling needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from uuid import UUID

import asyncpg

from server.domain.change_feed import Entry, Positions
from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("change_feed.sql")
_NOWHERE = 2**63 - 1

READ_SPAN = 4096
"""The most numbers that one read of a bucket looks through."""


@dataclass(frozen=True, slots=True)
class News:
    """What a poll found: where the buckets stand, and the entries since the last one.

    Entries of a bucket are in order. `heads` are the positions that the entries lead to;
    `more` says that there are entries behind them.
    """

    heads: Positions
    floors: Positions
    entries: Sequence[Entry]
    more: bool


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Entries of one bucket. There are no others that were asked for up to `reached`.

    `floor` is the last number that was forgotten, `head` the last one that was given.
    """

    entries: Sequence[Entry]
    reached: int
    floor: int
    head: int


class ChangeFeedStore:
    """Reads the journal. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, buckets: int) -> None:
        self._database = database
        self.buckets = buckets

    async def epoch(self) -> UUID:
        """Return what identifies this database among those it might be mistaken for."""
        async with self._database.connection() as connection:
            epoch: UUID = await connection.fetchval(_SQL["journal_epoch"])
        return epoch

    async def poll(self, since: Positions | None, most: int) -> News:
        """Return the entries behind `since`, at most `most` of a bucket; none at all for None."""
        behind = [_NOWHERE] * self.buckets if since is None else list(since)
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["poll_journal"], behind, most)
        heads, floors, more = [], [], False
        entries: list[Entry] = []
        for _, group in groupby(rows, itemgetter("bucket")):
            found = list(group)
            full = len(found) == most and found[-1]["seq"] is not None
            heads.append(found[-1]["seq"] if full else found[0]["journal_seq"])
            floors.append(found[0]["floor"])
            entries += _entries(found, found[0]["bucket"])
            more = more or full
        return News(tuple(heads), tuple(floors), entries, more)

    async def read(self, bucket: int, after: int, mailing_id: int, most: int) -> JournalPage:
        """Return up to `most` entries of one bucket behind `after`, of one mailing or (0) of all."""
        until = after + READ_SPAN
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["read_journal"], bucket, after, until, mailing_id, most)
        head = rows[0]["journal_seq"]
        full = len(rows) == most and rows[-1]["seq"] is not None
        reached = rows[-1]["seq"] if full else min(until, head)
        return JournalPage(list(_entries(rows, bucket)), reached, rows[0]["floor"], head)

    async def expired_buckets(self, older_than: timedelta) -> list[int]:
        """Return the buckets that have entries older than that."""
        async with self._database.connection() as connection:
            return [row["bucket"] for row in await connection.fetch(_SQL["expired_buckets"], older_than)]

    async def forget(self, bucket: int, older_than: timedelta, most: int) -> int:
        """Remove up to `most` of a bucket's oldest entries; return how many numbers they took.

        Does nothing while another replica is at this bucket.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["expired_journal"], bucket, older_than, most)
            if row is None or row["last"] is None:
                return 0
            await connection.execute(_SQL["forget_journal"], bucket, row["floor"], row["last"])
            await connection.execute(_SQL["raise_floor"], bucket, row["last"])
            return int(row["last"] - row["floor"])


def _entries(rows: Sequence[asyncpg.Record], bucket: int) -> Iterator[Entry]:
    for row in rows:
        if row["seq"] is not None:
            yield Entry(bucket, row["seq"], row["mailing_id"], row["at"], row["client_ids"], row["statuses"])
