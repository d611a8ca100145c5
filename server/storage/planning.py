"""The plan of mailings on Postgres: they start, take in clients, are rechecked for new ones, and end.

Every method is one statement or one short transaction, which does nothing when another replica was
faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from dispatcher.model.mailings import Expansion, PollResult, Step
from dispatcher.model.rates import bounded_rate
from dispatcher.model.states import Semantics
from server.storage.database import DispatcherDatabase
from server.storage.events import record_completed, record_expanded, record_started
from server.storage.filters import (
    EVERYBODY,
    NOBODY,
    Condition,
    audience_of,
    condition_of,
    drawn,
    filter_hash,
    plain_arguments,
    sample_of,
)
from server.storage.queries import load_queries

_SQL = load_queries("planning.sql")
_DATABASE = load_queries("database.sql")

DRAW_TIMEOUT = 300.0
"""Seconds that it may take to draw a sample, which reads all clients."""

LOOK_AGAIN = timedelta(minutes=15)
"""After which time the audience of a mailing that waits for its local start is looked at again."""


class PostgresMailingPlan:
    """Implements `ports.MailingPlan`."""

    def __init__(self, database: DispatcherDatabase) -> None:
        self._database = database

    async def poll(self) -> PollResult:
        row = await self._database.fetchrow(*_SQL["poll"].bind())
        return PollResult(**row)

    async def start_due(self) -> list[int]:
        async with self._database.transaction() as connection:
            await _find_begins(connection)
            ids = [row["id"] for row in await connection.fetch(*_SQL["start_due"].bind())]
            if ids:
                # Open mailings that ran before begin another pass over all clients; then come the new ones.
                await connection.execute(*_SQL["expand_anew"].bind(ids=ids))
                await connection.execute(*_SQL["open_expansions"].bind(ids=ids))
                await record_started(connection, ids)
        return ids

    async def expandable(self, most: int) -> list[Expansion]:
        rows = await self._database.fetch(*_SQL["expandable"].bind(most=most))
        return [_expansion(row, open_batches=row["open_batches"], over=row["over"]) for row in rows]

    async def expand(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        return await self._take_in("expand", expansion, bucket, batch_size, limit)

    async def expanded(self, recheck_min: float) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(*_SQL["expanded"].bind(recheck_min=timedelta(seconds=recheck_min)))
            await record_expanded(connection)

    async def rechecks_due(self) -> list[Expansion]:
        rows = await self._database.fetch(*_SQL["rechecks_due"].bind())
        return [_expansion(row) for row in rows]

    async def expand_changes(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        return await self._take_in("expand_changes", expansion, bucket, batch_size, limit)

    async def _take_in(self, name: str, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        async with self._database.connection() as connection:
            if name == "expand":
                condition = await _whom_to_take(connection, expansion, bucket)
            else:
                condition = _who_joins(expansion)
            statement = _SQL[name].bind(
                bucket=bucket,
                mailing_id=expansion.mailing_id,
                batch_size=batch_size,
                version=expansion.version,
                limit=limit,
                position=expansion.positions[bucket],
                **plain_arguments(expansion.filter),
                condition=condition and condition.positional(),
                literals=condition and condition.literals,
            )
            row = await connection.fetchrow(*statement)
        if row is None:
            return Step(moved=False, seen=0, inserted=0, position=expansion.positions[bucket], finished=False)
        return Step(moved=True, **row)

    async def rechecked(self, ids: Sequence[int], found: Sequence[int], shortest: float, longest: float) -> None:
        statement = _SQL["rechecked"].bind(
            ids=ids, found=found, shortest=timedelta(seconds=shortest), longest=timedelta(seconds=longest)
        )
        await self._database.execute(*statement)

    async def expedite(self) -> None:
        await self._database.execute(*_SQL["expedite"].bind())
        await self._database.execute(*_SQL["shorten_leases"].bind())

    async def complete(self, ids: Sequence[int] | None = None) -> list[int]:
        async with self._database.transaction() as connection:
            locked = [row["id"] for row in await connection.fetch(*_SQL["lock_done"].bind(ids=ids))]
            if not locked:
                return []
            ended = [row["id"] for row in await connection.fetch(*_SQL["complete"].bind(ids=locked))]
            await record_completed(connection, ended)
        return ended

    async def forget_changes(self) -> None:
        await self._database.execute(*_SQL["forget_changes"].bind())


async def _find_begins(connection: asyncpg.Connection) -> None:
    """Find out when mailings with a local start begin: when the first zone of their audience reaches it."""
    for row in await connection.fetch(*_SQL["local_starts"].bind()):
        audience, local_start = audience_of(row["filter"]), row["local_start"]
        arguments = {**plain_arguments(audience), "local_start": local_start}
        first_zone = (condition_of(audience) or EVERYBODY).bind(_SQL["first_zone"], **arguments)
        begins_at = await connection.fetchval(*first_zone)
        statement = _SQL["set_begin"].bind(
            id=row["id"],
            version=row["version"],
            begins_at=begins_at,
            local_start=local_start,
            look_again=LOOK_AGAIN,
        )
        await connection.execute(*statement)


async def _whom_to_take(connection: asyncpg.Connection, expansion: Expansion, bucket: int) -> Condition | None:
    """Return the condition of the first pass; the sample of a mailing is drawn before its first step."""
    audience, condition = expansion.filter, condition_of(expansion.filter)
    sample = sample_of(audience)
    if sample is None:
        return condition
    key = {"mailing_id": expansion.mailing_id, "hash_": filter_hash(audience)}
    if not await connection.fetchval(*_SQL["has_sample"].bind(bucket=bucket, **key)):
        arguments = {**key, **plain_arguments(audience), "seed": sample.seed, "size": sample.size}
        statement = (condition or EVERYBODY).bind(_SQL["draw_sample"], **arguments)
        async with connection.transaction():
            await connection.execute(*_DATABASE["plan_for_arguments"].bind())
            await connection.execute(*statement, timeout=DRAW_TIMEOUT)
    return (condition or EVERYBODY).together(drawn(**key, bucket=bucket))


def _who_joins(expansion: Expansion) -> Condition | None:
    """Return the condition on clients who changed: a sample that was drawn stays as it is."""
    return NOBODY if sample_of(expansion.filter) else condition_of(expansion.filter)


def _expansion(row: asyncpg.Record, open_batches: int = 0, over: bool = False) -> Expansion:
    return Expansion(
        mailing_id=row["id"],
        version=row["version"],
        filter=audience_of(row["filter"]),
        semantics=Semantics(row["semantics"]),
        max_rate=bounded_rate(row["max_rate"]),
        positions=dict(zip(row["buckets"], row["positions"], strict=True)),
        open_batches=open_batches,
        over=over,
    )
