"""The ledger on Postgres: the only module of the dispatcher that knows asyncpg.

Every method is one statement (or one short transaction), so nothing is half done when the
process dies between two of them. Connection errors and timeouts become StorageUnavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson

from dispatcher.model.records import (
    AudienceFilter,
    ClaimedBatch,
    Expansion,
    FrequencyCap,
    Mailing,
    OpenWork,
    PollResult,
    Recipient,
    RetryPolicy,
    Step,
)
from dispatcher.model.states import MailingState, Reason, Semantics
from dispatcher.outcome_events import Event, of_outcomes
from dispatcher.ports import Render, Settled, StorageUnavailable
from server.storage.endpoint_limits import PostgresEndpointLimits
from server.storage.event_writer import columns, record_completed, record_expanded, record_started, say
from server.storage.queries import load_queries
from server.storage.reach import translate_database_errors

CHANNEL = "mailing"
"""Notified when something changed that dispatchers should look at now; a hint, no more."""

Pool = asyncpg.Pool
"""The connections of a ledger; a name for those who only hand them on."""

T = TypeVar("T")

_SQL = load_queries("planning.sql") | load_queries("work_queue.sql")
_EVERYBODY = AudienceFilter()


class PostgresLedger(PostgresEndpointLimits):
    """The ledger behind an asyncpg pool; implements `ports.Ledger`.

    `replica_id` is written into the batches it holds. With a `cap`, no client is sent more than it
    allows.
    """

    def __init__(self, pool: asyncpg.Pool, replica_id: UUID, cap: FrequencyCap | None = None) -> None:
        super().__init__(pool, replica_id)
        self._cap = cap

    async def poll(self) -> PollResult:
        with translate_database_errors():
            row = await self._pool.fetchrow(_SQL["poll"])
        return PollResult(**row)

    async def start_due(self) -> list[int]:
        with translate_database_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                ids = [row["id"] for row in await connection.fetch(_SQL["start_due"])]
                if ids:
                    # Those that ran before and are open look at all clients again; then come the new ones.
                    await connection.execute(_SQL["expand_anew"], ids)
                    await connection.execute(_SQL["open_expansions"], ids)
                    await record_started(connection, ids)
        return ids

    async def expandable(self, most: int) -> list[Expansion]:
        with translate_database_errors():
            rows = await self._pool.fetch(_SQL["expandable"], most)
        return [_expansion(row, open_batches=row["open_batches"], over=row["over"]) for row in rows]

    async def expand(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        return await self._take_in("expand", expansion, bucket, batch_size, limit)

    async def expanded(self, recheck_min: float) -> None:
        with translate_database_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_SQL["expanded"], timedelta(seconds=recheck_min))
                await record_expanded(connection)

    async def rechecks_due(self) -> list[Expansion]:
        with translate_database_errors():
            rows = await self._pool.fetch(_SQL["rechecks_due"])
        return [_expansion(row) for row in rows]

    async def expand_changes(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        return await self._take_in("expand_changes", expansion, bucket, batch_size, limit)

    async def _take_in(self, statement: str, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        arguments = (
            bucket,
            expansion.mailing_id,
            batch_size,
            expansion.version,
            limit,
            expansion.positions[bucket],
            *_filter_arguments(expansion.filter),
        )
        with translate_database_errors():
            async with self._pool.acquire() as connection:
                if expansion.filter.client_ids is None:
                    row = await connection.fetchrow(_SQL[statement], *arguments)
                else:
                    row = await _planned_for(connection, _SQL[statement], *arguments)
        if row is None:
            return Step(moved=False, seen=0, inserted=0, position=expansion.positions[bucket], finished=False)
        return Step(moved=True, **row)

    async def rechecked(self, ids: Sequence[int], found: Sequence[int], shortest: float, longest: float) -> None:
        with translate_database_errors():
            await self._pool.execute(
                _SQL["rechecked"], ids, found, timedelta(seconds=shortest), timedelta(seconds=longest)
            )

    async def expedite(self) -> None:
        with translate_database_errors():
            await self._pool.execute(_SQL["expedite"])

    async def complete(self, ids: Sequence[int] | None = None) -> list[int]:
        with translate_database_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                locked = [row["id"] for row in await connection.fetch(_SQL["lock_done"], ids)]
                if not locked:
                    return []
                ended = [row["id"] for row in await connection.fetch(_SQL["complete"], locked)]
                await record_completed(connection, ended)
        return ended

    async def forget_changes(self) -> None:
        with translate_database_errors():
            await self._pool.execute(_SQL["forget_changes"])

    async def scan(self) -> list[OpenWork]:
        with translate_database_errors():
            rows = await self._pool.fetch(_SQL["scan"])
        return [OpenWork(**row) for row in rows]

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        with translate_database_errors():
            rows = await self._pool.fetch(_SQL["definitions"], ids)
        return {row["id"]: _mailing(row) for row in rows}

    async def claim(
        self, mailing: Mailing, bucket: int, most: int, lease: float, render: Render | None
    ) -> list[ClaimedBatch]:
        with translate_database_errors():
            async with self._pool.acquire() as connection:
                rows = await connection.fetch(
                    _SQL["claim"],
                    bucket,
                    mailing.id,
                    most,
                    timedelta(seconds=lease),
                    self._replica_id,
                    mailing.version,
                    mailing.state,
                )
                return [await self._batch(connection, mailing, bucket, row, render) for row in rows]

    async def release_orphans(self, known: Sequence[int]) -> None:
        with translate_database_errors():
            await self._pool.execute(_SQL["release_orphans"], self._replica_id, known)

    async def release_all(self) -> None:
        """Free every held batch: for when it is known that no holder is alive."""
        with translate_database_errors():
            await self._pool.execute(_SQL["release_all"])

    async def _batch(
        self,
        connection: asyncpg.pool.PoolConnectionProxy,
        mailing: Mailing,
        bucket: int,
        row: asyncpg.Record,
        render: Render | None,
    ) -> ClaimedBatch:
        ids = row["client_ids"]
        statement = _SQL["fetch"] if render is None else _SQL["fetch_values"]
        audience = _filter_arguments(mailing.audience or _EVERYBODY)
        records = await connection.fetch(statement, bucket, mailing.id, ids, min(ids), max(ids), *audience)
        if render is None:
            text = (mailing.text,)
            recipients = [Recipient._make((*record, *text)) for record in records]
        else:
            recipients = [_rendered(record, render) for record in records]
        if self._cap is not None:
            recipients = await self._capped(connection, mailing, bucket, recipients, self._cap)
        return ClaimedBatch(
            bucket, mailing.id, row["no"], row["fence"], row["claimed_at"], row["reclaimed"], recipients
        )

    async def _capped(
        self,
        connection: asyncpg.pool.PoolConnectionProxy,
        mailing: Mailing,
        bucket: int,
        recipients: list[Recipient],
        cap: FrequencyCap,
    ) -> list[Recipient]:
        """Bar the clients who got as many messages as the cap allows, and count this one for the others."""
        sendable = [one.client_id for one in recipients if one.phone and not one.skip_reason and one.opens_at is None]
        period = timedelta(seconds=cap.period)
        rows = await connection.fetch(
            _SQL["admit"], bucket, mailing.id, sendable, period, cap.messages, mailing.important
        )
        capped = {row["id"] for row in rows}
        if not capped:
            return recipients
        reason = Reason.FREQUENCY_CAP
        return [one._replace(skip_reason=reason) if one.client_id in capped else one for one in recipients]

    async def settle(
        self, batch: ClaimedBatch, endpoint: str, outcomes: Sequence[Settled], done: bool, kept: Sequence[int] = ()
    ) -> bool:
        told = of_outcomes(batch.mailing_id, endpoint, outcomes)
        arguments = _settle_arguments(batch, endpoint, outcomes, done, kept)
        with translate_database_errors():
            row = await self._pool.fetchrow(_SQL["settle"], *arguments, *_log_arguments(told))
        if row["held"]:
            say(told, logging.DEBUG)
        return bool(row["held"])

    async def listen(self, hint: Callable[[], None], pause: float = 1.0) -> None:
        """Call `hint` whenever something changed, until cancelled.

        Reconnects after `pause` seconds when its connection is lost. Where notifications do
        not work (a pooler in transaction mode) nothing is ever heard, and polling does it all.
        """
        while True:
            with contextlib.suppress(StorageUnavailable), translate_database_errors():
                async with self._pool.acquire() as connection:
                    await _listen(connection, hint)
            await asyncio.sleep(pause)


async def _listen(connection: asyncpg.pool.PoolConnectionProxy, hint: Callable[[], None]) -> None:
    """Call `hint` at every notification until the connection is lost."""
    gone = asyncio.Event()

    def lost(_: object) -> None:
        gone.set()

    def heard(*_: object) -> None:
        hint()

    connection.add_termination_listener(lost)
    await connection.add_listener(CHANNEL, heard)
    hint()
    try:
        await gone.wait()
    finally:
        connection.remove_termination_listener(lost)
        if not connection.is_closed():
            await connection.remove_listener(CHANNEL, heard)


async def _planned_for(
    connection: asyncpg.pool.PoolConnectionProxy, statement: str, *arguments: object
) -> asyncpg.Record | None:
    """Run a statement with a plan for these arguments: a generic one takes no index for chosen clients."""
    async with connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        return await connection.fetchrow(statement, *arguments)


def _settle_arguments(
    batch: ClaimedBatch, endpoint: str, outcomes: Sequence[Settled], done: bool, kept: Sequence[int] = ()
) -> tuple[Any, ...]:
    """Return the statement's parameters: parallel arrays of outcomes, requeued messages, failures."""
    requeued = [(client, o.due_at) for client, _, o in outcomes if o.due_at is not None]
    failed = [(client, before, o, o.failure) for client, before, o in outcomes if o.failure is not None]
    return (
        batch.bucket,
        batch.mailing_id,
        batch.no,
        batch.fence,
        done,
        [client for client, _, _ in outcomes],
        _alike([o.status for _, _, o in outcomes]),
        _alike([o.reason for _, _, o in outcomes]),
        _alike([o.attempted for _, _, o in outcomes]),
        _alike([o.endpoint_status for _, _, o in outcomes]),
        _alike([o.endpoint_code for _, _, o in outcomes]),
        _alike([o.duration_ms for _, _, o in outcomes]),
        [o.due_at for _, _, o in outcomes] if requeued else [],
        outcomes[0][0] if outcomes else 0,
        outcomes[-1][0] if outcomes else 0,
        [client for client, _ in requeued],
        [due_at for _, due_at in requeued],
        endpoint,
        [client for client, _, _, _ in failed],
        [before + 1 for _, before, _, _ in failed],
        [failure.at for _, _, _, failure in failed],
        [failure.error_class for _, _, _, failure in failed],
        [o.endpoint_status for _, _, o, _ in failed],
        [o.endpoint_code for _, _, o, _ in failed],
        [o.duration_ms for _, _, o, _ in failed],
        [failure.excerpt for _, _, _, failure in failed],
        kept,
        _alike([o.uncounted for _, _, o in outcomes]),
        _alike([before for _, before, _ in outcomes]),
    )


def _log_arguments(told: Sequence[Event]) -> tuple[list[Any], ...]:
    """Return the statement's last parameters; all of its entries are of one mailing."""
    levels, events, texts, _, clients, details = columns(told)
    return levels, events, texts, clients, details


def _alike(values: list[T]) -> list[T]:
    """Return the values, or a single one when all are alike: encoding an array costs per entry."""
    return values[:1] if values and values.count(values[0]) == len(values) else values


def _expansion(row: asyncpg.Record, open_batches: int = 0, over: bool = False) -> Expansion:
    return Expansion(
        mailing_id=row["id"],
        version=row["version"],
        filter=_filter(row["filter"]),
        semantics=Semantics(row["semantics"]),
        max_rate=row["max_rate"],
        positions=dict(zip(row["buckets"], row["positions"], strict=True)),
        open_batches=open_batches,
        over=over,
    )


def _filter_arguments(audience: AudienceFilter) -> tuple[Any, ...]:
    """Return the filter as five parameters of a statement; NULL asks nothing."""
    attributes = None if audience.attributes is None else orjson.dumps(audience.attributes).decode()
    return audience.tags, audience.operator_codes, audience.timezones, attributes, audience.client_ids


def _filter(text: str) -> AudienceFilter:
    stored = {field: value for field, value in orjson.loads(text).items() if value}
    return AudienceFilter(**stored)


def _mailing(row: asyncpg.Record) -> Mailing:
    return Mailing(
        id=row["id"],
        version=row["version"],
        state=MailingState(row["state"]),
        text=row["text"],
        endpoint=row["endpoint"],
        semantics=Semantics(row["semantics"]),
        priority=row["priority"],
        ends_at=row["ends_at"],
        retry=RetryPolicy(row["max_attempts"], row["initial_backoff"], row["max_backoff"]),
        audience=None if row["filter"] is None else _filter(row["filter"]),
        max_rate=row["max_rate"],
        important=row["important"],
    )


def _rendered(record: asyncpg.Record, render: Render) -> Recipient:
    *facts, operator_code, tag, timezone, attributes = record
    phone = record["phone"]
    text = "" if phone is None else render(phone, operator_code, tag, timezone, orjson.loads(attributes))
    return Recipient._make((*facts, text))
