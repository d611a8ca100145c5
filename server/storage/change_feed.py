"""The change feed in the database: read in the order of its numbers, without a lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import asyncpg

from server.domain.change_feed import Entry
from server.domain.resume_tokens import Positions
from server.storage.database import Database
from server.storage.queries import load_queries
from server.storage.retention import RetainedEntries, timeline_of

_SQL = load_queries("change_feed.sql")
_NOWHERE = 2**63 - 1

READ_SPAN = 4096
"""The most numbers that one read of a bucket scans."""


@dataclass(frozen=True, slots=True)
class Poll:
    """What a poll found: the positions of the buckets, and the entries since the last poll.

    Entries of a bucket are in order. `heads` are the positions behind the entries, `floors` the last
    numbers removed; with `more` there are entries behind `heads`. `timeline` is the server's.
    """

    timeline: int
    heads: Positions
    floors: Positions
    entries: Sequence[Entry]
    more: bool


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Entries of one bucket. There are no other matching ones up to `reached`.

    `floor` is the last number removed, `head` the last one given.
    """

    entries: Sequence[Entry]
    reached: int
    floor: int
    head: int


class ChangeFeedStore(RetainedEntries):
    """Reads the change feed. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, buckets: int) -> None:
        super().__init__(database, buckets, _SQL)

    async def poll(self, since: Positions | None, most: int) -> Poll:
        """Return the entries behind `since`, at most `most` of a bucket; none at all for None."""
        behind = [_NOWHERE] * self.buckets if since is None else list(since)
        rows = await self._database.fetch(*_SQL["poll_changes"].bind(positions=behind, most=most))
        heads, floors, more = [], [], False
        entries: list[Entry] = []
        for _, group in groupby(rows, itemgetter("bucket")):
            found = list(group)
            full = len(found) == most and found[-1]["seq"] is not None
            heads.append(found[-1]["seq"] if full else found[0]["journal_seq"])
            floors.append(found[0]["floor"])
            entries += _entries(found, found[0]["bucket"])
            more = more or full
        return Poll(timeline_of(rows), tuple(heads), tuple(floors), entries, more)

    async def read(self, bucket: int, after: int, mailing_id: int, most: int) -> ChangePage:
        """Return up to `most` entries of one bucket behind `after`, of one mailing or (0) of all."""
        until = after + READ_SPAN
        statement = _SQL["read_changes"].bind(bucket=bucket, after=after, until=until, mailing_id=mailing_id, most=most)
        rows = await self._database.fetch(*statement)
        head = rows[0]["journal_seq"]
        full = len(rows) == most and rows[-1]["seq"] is not None
        reached = rows[-1]["seq"] if full else min(until, head)
        return ChangePage(list(_entries(rows, bucket)), reached, rows[0]["floor"], head)


def _entries(rows: Sequence[asyncpg.Record], bucket: int) -> Iterator[Entry]:
    for row in rows:
        if row["seq"] is not None:
            receipts = row["receipts"] or (), row["receipt_codes"] or ()
            yield Entry(bucket, row["seq"], row["mailing_id"], row["at"], row["client_ids"], row["statuses"], *receipts)
