"""Puts settled messages back to PENDING, with new attempts.

Works in short transactions of one bucket. Each locks the mailing and checks again whether it may be
retried, so pausing, cancelling or deleting it waits for one of them at most. When the service dies
in between, a repeated call puts back the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

import asyncpg

from dispatcher.model.batches import BATCH_SIZE
from dispatcher.model.rates import bounded_rate
from dispatcher.model.states import AudienceMode, MailingState, Semantics, Status
from dispatcher.retry_policy import batch_size
from server.domain.errors import Kind, MailingEnded, MessagesRemoved, NotFound, WrongState
from server.domain.events import mailing_retried
from server.domain.mailings import RETRYABLE
from server.storage.database import Database, notify_dispatchers
from server.storage.events import record
from server.storage.queries import load_queries

STEP = 5000
"""The most messages that one transaction puts back."""

BLOCKS = STEP // BATCH_SIZE
"""The most blocks of messages that one transaction puts back."""

_SQL = load_queries("mailing_retry.sql")
_MAILINGS = load_queries("mailings.sql")
_PLANNER = load_queries("planning.sql")


class MailingRetry:
    """Retries mailings. May raise DatabaseUnavailable."""

    def __init__(self, database: Database, hint: Callable[[], None]) -> None:
        self._database = database
        self._hint = hint

    async def retry(self, mailing_id: int, statuses: Collection[Status]) -> int:
        """Put back the messages that have one of the statuses now; return how many.

        A COMPLETED mailing with such messages runs again. A message that is settled again during the
        call stays settled. Raise NotFound, WrongState, MessagesRemoved and MailingEnded, possibly after some messages
        were put back, if the mailing's state was changed in between.
        """
        began_at, buckets = await self._begin(mailing_id, statuses)
        requeued = 0
        for bucket in buckets:
            position: int | None = 0
            while position is not None:
                count, position = await self._step(mailing_id, statuses, began_at, bucket, position)
                requeued += count
            while count := await self._step_of_blocks(mailing_id, statuses, began_at, bucket):
                requeued += count
        self._hint()
        return requeued

    async def _begin(self, mailing_id: int, statuses: Collection[Status]) -> tuple[datetime, list[int]]:
        """Return the database's time and the buckets that have such messages."""

        async def work(connection: asyncpg.Connection) -> tuple[datetime, list[int]]:
            mailing = await _lock(connection, mailing_id)
            rows = await connection.fetch(
                *_SQL["list_buckets_to_retry"].bind(mailing_id=mailing_id, statuses=sorted(statuses))
            )
            if rows:
                await record(connection, mailing_retried(mailing_id, statuses))
            return mailing["read_at"], [row["bucket"] for row in rows]

        return await self._database.transact(work)

    async def _step(
        self, mailing_id: int, statuses: Collection[Status], began_at: datetime, bucket: int, position: int
    ) -> tuple[int, int | None]:
        """Put back the next messages of a bucket; return how many, and the last one unless there are no more."""

        async def work(connection: asyncpg.Connection) -> tuple[int, int | None]:
            mailing = await _lock(connection, mailing_id)
            statement = _SQL["requeue"].bind(
                bucket=bucket,
                mailing_id=mailing_id,
                statuses=sorted(statuses),
                settled_until=began_at,
                after=position,
                most=STEP,
                batch_size=batch_size(Semantics(mailing["semantics"]), bounded_rate(mailing["max_rate"]), BATCH_SIZE),
            )
            row = await connection.fetchrow(*statement)
            if row["requeued"]:
                await reopen(connection, mailing_id, mailing)
            return row["requeued"], row["last_id"]

        return await self._database.transact(work)

    async def _step_of_blocks(
        self, mailing_id: int, statuses: Collection[Status], began_at: datetime, bucket: int
    ) -> int:
        """Put back the next messages of a bucket that ended untried, in blocks; return how many."""

        async def work(connection: asyncpg.Connection) -> int:
            mailing = await _lock(connection, mailing_id)
            statement = _SQL["requeue_blocks"].bind(
                bucket=bucket,
                mailing_id=mailing_id,
                statuses=sorted(statuses),
                settled_until=began_at,
                most=BLOCKS,
            )
            count: int = await connection.fetchval(*statement)
            if count:
                await reopen(connection, mailing_id, mailing)
            return count

        return await self._database.transact(work)


async def _lock(connection: asyncpg.Connection, mailing_id: int) -> asyncpg.Record:
    """Lock the mailing and return it. Raise NotFound, WrongState, MessagesRemoved, MailingEnded."""
    row = await connection.fetchrow(*_SQL["lock_retried"].bind(mailing_id=mailing_id))
    if row is None:
        raise NotFound(Kind.MAILING, mailing_id)
    state = MailingState(row["state"])
    if state not in RETRYABLE:
        raise WrongState("retried", state, RETRYABLE)
    if row["removed"]:
        raise MessagesRemoved
    if row["ended"]:
        raise MailingEnded
    return row


async def reopen(connection: asyncpg.Connection, mailing_id: int, mailing: asyncpg.Record) -> None:
    """Let a completed mailing run again; an open one takes in clients that match since. Tell the dispatchers.

    `mailing` is its locked row, with state and audience mode.
    """
    await notify_dispatchers(connection)
    if mailing["state"] != MailingState.COMPLETED:
        return
    await connection.execute(*_SQL["reopen_mailing"].bind(mailing_id=mailing_id))
    if mailing["audience_mode"] == AudienceMode.OPEN:
        await connection.execute(*_PLANNER["expand_anew"].bind(ids=[mailing_id]))
