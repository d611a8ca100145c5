"""Decides which messages have been kept long enough, has them written to files where that is wanted, and hides them.

Whole partitions go together where they can. What is hidden is removed by `removals`; counters and reports stay. With
an archive nothing is hidden before its files are on the disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

import asyncpg

from server.domain.events import messages_removed
from server.domain.message_retention import GRACE, MessageRetention
from server.storage.database import Database
from server.storage.events import record
from server.storage.message_archive import MessageArchive
from server.storage.queries import load_queries
from server.storage.removals import begin_removal

_SQL = load_queries("message_retention.sql")
_FOR_GOOD = float("inf")


@dataclass(frozen=True, slots=True)
class Expired:
    """A mailing whose messages were kept long enough; `part` numbers its partition."""

    id: int
    updated_at: datetime
    part: int


class Retention:
    """Applies the rules to one database. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, rules: MessageRetention, archive: MessageArchive | None = None) -> None:
        self._database = database
        self._rules = rules
        self._archive = archive

    async def expire(self) -> AsyncIterator[list[int]]:
        """Hide what was kept long enough, a partition at a time; yield the mailings of each.

        Raise OSError when the archive cannot be written: then nothing of that partition is hidden.
        """
        if not self._rules.removes:
            return
        for _, group in groupby(await self.expired(), attrgetter("part")):
            mailings = list(group)
            if self._archive is not None:
                mailings = [one for one in mailings if await self._archive.write(one.id)]
            yield await self._hide(mailings)

    async def expired(self) -> list[Expired]:
        """Return the mailings whose messages were kept long enough, by partition."""
        labels = self._rules.labels
        statement = _SQL["list_expired"].bind(
            names=[rule.name for rule in labels],
            values=[rule.value for rule in labels],
            keeps=[_seconds(rule.keep) for rule in labels],
            keep=_seconds(self._rules.keep),
            grace=GRACE,
        )
        rows = await self._database.scans.fetch(*statement)
        return sorted((Expired(**row) for row in rows), key=attrgetter("part", "id"))

    async def _hide(self, mailings: Sequence[Expired]) -> list[int]:
        """Hide the messages of those mailings that are as they were judged; return which."""

        async def work(connection: asyncpg.Connection) -> list[int]:
            hidden, events = [], []
            for mailing in mailings:
                statement = _SQL["hide_messages"].bind(mailing_id=mailing.id, updated_at=mailing.updated_at)
                if await connection.fetchval(*statement) is not None:
                    await begin_removal(connection, mailing.id, keeps_report=True)
                    messages = await connection.fetchval(*_SQL["count_of"].bind(mailing_id=mailing.id))
                    events.append(messages_removed(mailing.id, messages, self._archive is not None))
                    hidden.append(mailing.id)
            await record(connection, *events)
            return hidden

        return await self._database.transact(work)


def _seconds(keep: timedelta | None) -> float:
    return _FOR_GOOD if keep is None else keep.total_seconds()
