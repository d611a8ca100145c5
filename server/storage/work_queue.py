"""The work queue on Postgres: batches are scanned, leased with their messages, and settled.

Every method is one statement (a claim: one more per batch), so nothing is half done when the
process dies between two of them. Connection errors and timeouts become StorageUnavailable.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson

from dispatcher.model.outcomes import Settlement
from dispatcher.model.records import (
    AudienceFilter,
    ClaimedBatch,
    FrequencyCap,
    Mailing,
    OpenWork,
    Recipient,
    RetryPolicy,
    endpoint_name,
)
from dispatcher.model.states import MailingState, Reason, Semantics
from dispatcher.outcome_events import Event, of_settlement
from dispatcher.ports import Render
from server.storage.audience import filter_arguments, read_filter
from server.storage.event_writer import event_columns, say
from server.storage.queries import load_queries
from server.storage.reach import translate_database_errors

T = TypeVar("T")

_SQL = load_queries("work_queue.sql")
_EVERYBODY = AudienceFilter()


class PostgresWorkQueue:
    """The queue behind an asyncpg pool; implements `ports.WorkQueue`.

    `replica_id` is written into the batches it holds. With a `cap`, no client is sent more than it
    allows.
    """

    def __init__(self, pool: asyncpg.Pool, replica_id: UUID, cap: FrequencyCap | None = None) -> None:
        self._pool = pool
        self._replica_id = replica_id
        self._cap = cap

    async def scan(self) -> list[OpenWork]:
        with translate_database_errors():
            rows = await self._pool.fetch(_SQL["scan"])
        return [OpenWork(**{**row, "endpoint": endpoint_name(row["endpoint"])}) for row in rows]

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
        audience = filter_arguments(mailing.audience or _EVERYBODY)
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

    async def settle(self, settlement: Settlement) -> bool:
        events = of_settlement(settlement)
        arguments = (*_settle_arguments(settlement), *_event_arguments(events))
        with translate_database_errors():
            row = await self._pool.fetchrow(_SQL["settle"], *arguments)
        if row["held"]:
            say(events, logging.DEBUG)
        return bool(row["held"])


def _settle_arguments(settlement: Settlement) -> tuple[Any, ...]:
    """Return the statement's parameters: parallel arrays of outcomes, requeued messages, failures."""
    batch, clients, columns = settlement.batch, settlement.client_ids, settlement.columns
    requeued = [(client, due_at) for client, due_at in zip(clients, columns.due_ats, strict=True) if due_at]
    failed = [(client, before, o, o.failure) for client, before, o in settlement.failed if o.failure is not None]
    return (
        batch.bucket,
        batch.mailing_id,
        batch.no,
        batch.fence,
        settlement.done,
        clients,
        _alike(columns.statuses),
        _alike(columns.reasons),
        _alike(columns.attempted),
        _alike(columns.endpoint_statuses),
        _alike(columns.endpoint_codes),
        _alike(columns.durations_ms),
        columns.due_ats if requeued else [],
        clients[0] if clients else 0,
        clients[-1] if clients else 0,
        [client for client, _ in requeued],
        [due_at for _, due_at in requeued],
        settlement.endpoint,
        [client for client, _, _, _ in failed],
        [before + 1 for _, before, _, _ in failed],
        [failure.at for _, _, _, failure in failed],
        [failure.error_class for _, _, _, failure in failed],
        [o.endpoint_status for _, _, o, _ in failed],
        [o.endpoint_code for _, _, o, _ in failed],
        [o.duration_ms for _, _, o, _ in failed],
        [failure.excerpt for _, _, _, failure in failed],
        settlement.kept,
        _alike(columns.uncounted),
        _alike(settlement.attempts_before),
    )


def _event_arguments(events: Sequence[Event]) -> tuple[list[Any], ...]:
    """Return the statement's last parameters; all of its events are of one mailing."""
    levels, names, texts, _, clients, details = event_columns(events)
    return levels, names, texts, clients, details


def _alike(values: Sequence[T]) -> Sequence[T]:
    """Return the values, or a single one when all are alike: encoding an array costs per entry."""
    return values[:1] if values and values.count(values[0]) == len(values) else values


def _mailing(row: asyncpg.Record) -> Mailing:
    return Mailing(
        id=row["id"],
        version=row["version"],
        state=MailingState(row["state"]),
        text=row["text"],
        endpoint=endpoint_name(row["endpoint"]),
        semantics=Semantics(row["semantics"]),
        priority=row["priority"],
        ends_at=row["ends_at"],
        retry=RetryPolicy(row["max_attempts"], row["initial_backoff"], row["max_backoff"]),
        audience=None if row["filter"] is None else read_filter(row["filter"]),
        max_rate=row["max_rate"],
        important=row["important"],
    )


def _rendered(record: asyncpg.Record, render: Render) -> Recipient:
    *facts, operator_code, tag, timezone, attributes = record
    phone = record["phone"]
    text = "" if phone is None else render(phone, operator_code, tag, timezone, orjson.loads(attributes))
    return Recipient._make((*facts, text))
