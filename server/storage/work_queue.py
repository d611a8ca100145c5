"""The work queue on Postgres: batches are scanned, leased with their messages, and settled.

Claims and settlements are functions of the database, each one statement called with the bucket, so nothing
is half done when the process dies. What a gateway said beside its answer (its own ids, who wants no
messages) is true whichever replica holds the batch, and is noted before the settlement: repeating it does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson

from dispatcher.model.batches import ClaimedBatch, OpenWork, Recipient, Recipients
from dispatcher.model.endpoints import endpoint_name
from dispatcher.model.mailings import AudienceFilter, Mailing, RetryPolicy
from dispatcher.model.outcomes import Settlement
from dispatcher.model.quotas import day_limit
from dispatcher.model.rates import bounded_rate
from dispatcher.model.settings import FrequencyCap
from dispatcher.model.states import MailingState, Reason, Semantics
from dispatcher.model.texts import RenderedText
from dispatcher.outcome_events import Event, of_settlement
from dispatcher.ports import Render
from server.domain.events import OptOutSource
from server.storage.database import DispatcherDatabase
from server.storage.events import event_columns, log_events
from server.storage.filters import Condition, audience_of, condition_of, plain_arguments
from server.storage.opt_outs import opting
from server.storage.queries import load_queries
from server.storage.schema_watch import SchemaWatch

T = TypeVar("T")

_SQL = load_queries("work_queue.sql")
_RECEIPTS = load_queries("receipts.sql")
_EVERYBODY = AudienceFilter()
_NO_TEXT = RenderedText("", Reason.NONE)


class PostgresWorkQueue:
    """Implements `ports.WorkQueue`. `replica_id` is the holder of the batches it claims.

    With a `cap`, no client is sent more messages than it allows. While the `schema` is newer than this
    release nothing is found, claimed or confirmed, as during the emergency stop.
    """

    def __init__(
        self,
        database: DispatcherDatabase,
        replica_id: UUID,
        cap: FrequencyCap | None = None,
        schema: SchemaWatch | None = None,
    ) -> None:
        self._schema = schema or SchemaWatch()
        self._database = database
        self._replica_id = replica_id
        self._cap = cap

    async def scan(self) -> list[OpenWork]:
        if self._schema.is_newer:
            return []
        rows = await self._database.fetch(*_SQL["scan"].bind())
        return [OpenWork(**{**row, "endpoint": endpoint_name(row["endpoint"])}) for row in rows]

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        if self._schema.is_newer:
            return {}
        rows = await self._database.fetch(*_SQL["definitions"].bind(ids=ids))
        return {row["id"]: _mailing(row) for row in rows}

    async def change_numbers(self) -> dict[int, int]:
        rows = await self._database.fetch(*_SQL["change_numbers"].bind())
        return {row["bucket"]: row["seq"] for row in rows}

    async def changed_clients(self, bucket: int, after: int, until: int, client_ids: Sequence[int]) -> list[int]:
        statement = _SQL["changed_clients"].bind(bucket=bucket, after=after, until=until, client_ids=client_ids)
        return [row["id"] for row in await self._database.fetch(*statement)]

    async def claim(
        self,
        mailing: Mailing,
        bucket: int,
        most: int,
        lease: float,
        render: Render | None,
        held: Sequence[int] = (),
    ) -> list[ClaimedBatch]:
        if self._schema.is_newer:
            return []
        statement = _SQL["claim"].bind(
            bucket=bucket,
            mailing_id=mailing.id,
            version=mailing.version,
            state=mailing.state,
            most=most,
            held=held,
            lease=timedelta(seconds=lease),
            replica_id=self._replica_id,
            max_backoff=timedelta(seconds=mailing.retry.max_backoff),
            with_values=render is not None,
            **plain_arguments(mailing.audience or _EVERYBODY),
        )
        async with self._database.connection() as connection:
            rows = await connection.fetch(*statement)
            return [await self._batch(connection, mailing, bucket, row, render) for row in rows]

    async def release_orphans(self, known: Sequence[int]) -> None:
        await self._database.execute(*_SQL["release_orphans"].bind(replica_id=self._replica_id, known=known))

    async def release_all(self) -> None:
        """Free every held batch, for when it is known that no holder is alive."""
        await self._database.execute(*_SQL["release_all"].bind())

    async def _batch(
        self,
        connection: asyncpg.Connection,
        mailing: Mailing,
        bucket: int,
        row: asyncpg.Record,
        render: Render | None,
    ) -> ClaimedBatch:
        recipients = _recipients(row, mailing, render)
        if mailing.audience is not None and (condition := condition_of(mailing.audience)):
            recipients = await _still_matching(connection, bucket, recipients, condition)
        if mailing.timed:
            recipients = await _by_timetable(connection, mailing, bucket, row, recipients)
        if self._cap is not None:
            recipients = await self._capped(connection, mailing, bucket, recipients, self._cap)
        return ClaimedBatch(
            bucket,
            mailing.id,
            row["no"],
            row["fence"],
            row["claimed_at"],
            row["reclaimed"],
            recipients,
            row["change_no"],
        )

    async def _capped(
        self,
        connection: asyncpg.Connection,
        mailing: Mailing,
        bucket: int,
        recipients: Recipients,
        cap: FrequencyCap,
    ) -> Recipients:
        """Mark clients at the frequency cap to be skipped, and count this message for the others."""
        statement = _SQL["admit"].bind(
            bucket=bucket,
            mailing_id=mailing.id,
            client_ids=_sendable(recipients),
            important=mailing.important,
            cap=cap.messages,
            period=timedelta(seconds=cap.period),
        )
        return _skipped(recipients, await connection.fetch(*statement), Reason.FREQUENCY_CAP)

    async def settle(self, settlement: Settlement) -> bool:
        batch, events = settlement.batch, of_settlement(settlement)
        await self._note_provider_ids(settlement)
        await self._note_opt_outs(settlement)
        statement = _SQL["settle"].bind(
            bucket=batch.bucket,
            mailing_id=batch.mailing_id,
            batch_no=batch.no,
            fence=batch.fence,
            done=settlement.done,
            kept=settlement.kept,
            endpoint=settlement.endpoint,
            **_outcome_arguments(settlement),
            **_failure_arguments(settlement),
            **_event_arguments(events),
        )
        row = await self._database.fetchrow(*statement)
        if row["held"]:
            log_events(events, logging.DEBUG)
        return bool(row["held"])

    async def _note_opt_outs(self, settlement: Settlement) -> None:
        """Opt those out of whom the gateway said that they want no messages."""
        clients = [client for client, _, outcome in settlement.failed if outcome.reason is Reason.OPTED_OUT]
        if clients:
            source, endpoint = OptOutSource.ENDPOINT, settlement.endpoint
            await self._database.fetch(*opting(settlement.batch.bucket, clients, True, source, endpoint=endpoint))

    async def _note_provider_ids(self, settlement: Settlement) -> None:
        """Remember the ids that the gateway gave, before the messages are settled: repeating it does no harm."""
        ids = settlement.columns.provider_ids
        if not any(ids):
            return
        named = [(client, one) for client, one in zip(settlement.client_ids, ids, strict=True) if one]
        client_ids, provider_ids = zip(*named, strict=True)
        statement = _RECEIPTS["note_provider_ids"].bind(
            bucket=settlement.batch.bucket,
            mailing_id=settlement.batch.mailing_id,
            client_ids=client_ids,
            provider_ids=provider_ids,
        )
        await self._database.execute(*statement)


async def _still_matching(
    connection: asyncpg.Connection, bucket: int, recipients: Recipients, condition: Condition
) -> Recipients:
    """Mark clients to be skipped who do not meet what a filter asks beside its plain fields."""
    asked = _sendable(recipients)
    if not asked:
        return recipients
    statement = _SQL["no_longer_match"].bind(
        bucket=bucket, client_ids=asked, condition=condition.positional(), literals=condition.literals
    )
    return _skipped(recipients, await connection.fetch(*statement), Reason.NO_LONGER_MATCHES)


def _sendable(recipients: Recipients) -> list[int]:
    """Return the clients to whom a message may be sent now, in ascending order."""
    return [one.client_id for one in recipients if one.phone and not one.skip_reason and one.opens_at is None]


def _skipped(recipients: Recipients, rows: Sequence[asyncpg.Record], why: Reason) -> Recipients:
    """Return the same with those of the rows marked to be skipped."""
    skipped = {row["id"] for row in rows}
    if not skipped:
        return recipients
    asked = zip(recipients.client_ids, recipients.skip_reasons, strict=True)
    return replace(recipients, skip_reasons=tuple(why if id_ in skipped else reason for id_, reason in asked))


def _outcome_arguments(settlement: Settlement) -> dict[str, Any]:
    """Return what is recorded of each message, as arrays parallel to the ascending client ids."""
    clients, columns = settlement.client_ids, settlement.columns
    return {
        "client_ids": array_text(clients),
        "attempts_before": _alike(settlement.attempts_before),
        "statuses": _alike(columns.statuses),
        "reasons": _alike(columns.reasons),
        "attempted": _alike(columns.attempted),
        "uncounted": _alike(columns.uncounted),
        "maybe_sent": _alike(columns.maybe_sent),
        "endpoint_statuses": _alike(columns.endpoint_statuses),
        "endpoint_codes": _alike(columns.endpoint_codes),
        "durations": array_text(_alike(columns.durations_ms)),
        "due_times": columns.due_ats if any(columns.due_ats) else [],
    }


def _failure_arguments(settlement: Settlement) -> dict[str, Any]:
    """Return the failed attempts as parallel arrays."""
    failed = [(client, before, o, o.failure) for client, before, o in settlement.failed if o.failure is not None]
    return {
        "failure_ids": [client for client, _, _, _ in failed],
        "failure_numbers": [before + 1 for _, before, _, _ in failed],
        "failure_times": [failure.at for _, _, _, failure in failed],
        "failure_classes": [failure.error_class for _, _, _, failure in failed],
        "failure_statuses": [o.endpoint_status for _, _, o, _ in failed],
        "failure_codes": [o.endpoint_code for _, _, o, _ in failed],
        "failure_durations": [o.duration_ms for _, _, o, _ in failed],
        "failure_excerpts": [failure.excerpt for _, _, _, failure in failed],
    }


def _event_arguments(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Return the events as parallel arrays; all of them are of one mailing."""
    columns = event_columns(events)
    return {
        "event_levels": columns["levels"],
        "event_names": columns["names"],
        "event_texts": columns["texts"],
        "event_client_ids": columns["client_ids"],
        "event_details": columns["details"],
    }


def _alike(values: Sequence[T]) -> Sequence[T]:
    """Return the values, or a single one when all are equal: encoding an array costs per entry."""
    return values[:1] if values and values.count(values[0]) == len(values) else values


def array_text(numbers: Sequence[int | None]) -> str:
    """Return the text of an array: the driver takes ten times as long to encode one of many entries."""
    entries = ",".join(["NULL" if number is None else str(number) for number in numbers])
    return f"{{{entries}}}"


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
        audience=None if row["filter"] is None else audience_of(row["filter"]),
        max_rate=bounded_rate(row["max_rate"]),
        day_limit=day_limit(row["max_per_day"], row["max_per_day_timezone"]),
        day_full=row["day_full"],
        important=row["important"],
        title=row["title"],
        timed=row["timed"],
    )


async def _by_timetable(
    connection: asyncpg.Connection, mailing: Mailing, bucket: int, row: asyncpg.Record, recipients: Recipients
) -> Recipients:
    """Return the recipients with when the timetable of the mailing lets each message leave, or why it cannot.

    One whose window or next attempt comes after the end ends for that.
    """
    claimed_at, ends_at = row["claimed_at"], mailing.ends_at
    asked = [one for one in recipients if one.phone and not one.skip_reason]
    if ends_at is not None:
        asked = [one for one in asked if one.opens_at is None or one.opens_at < ends_at]
    if not asked:
        return recipients
    statement = _SQL["departures"].bind(
        bucket=bucket,
        mailing_id=mailing.id,
        batch_no=row["no"],
        client_ids=[one.client_id for one in asked],
        moments=[one.opens_at or claimed_at for one in asked],
        claimed_at=claimed_at,
    )
    found = await connection.fetchrow(*statement)
    columns = [found[name] or () for name in ("client_ids", "opens_at", "closes_in", "reasons")]
    judged = {client_id: rest for client_id, *rest in zip(*columns, strict=True)}
    return Recipients.of(_judged(one, judged.get(one.client_id), claimed_at) for one in recipients)


def _judged(one: Recipient, found: Sequence[Any] | None, claimed_at: datetime) -> Recipient:
    if found is None:
        return one
    opens_at, closes_in, reason = found
    return one._replace(opens_at=opens_at if opens_at > claimed_at else None, closes_in=closes_in, skip_reason=reason)


def _recipients(row: asyncpg.Record, mailing: Mailing, render: Render | None) -> Recipients:
    """Return the messages of a claimed batch, with everybody's text or each with their own."""
    recipients = _columns(row, mailing)
    if render is not None and recipients:
        recipients = _with_texts(recipients, row, render)
    return _with_gone(recipients, row, mailing, "" if render else mailing.text) if row["gone"] else recipients


def _columns(row: asyncpg.Record, mailing: Mailing) -> Recipients:
    """Return what was claimed; a column is NULL in the row where it says the usual of all."""
    ids = tuple(row["client_ids"] or ())
    n = len(ids)

    def column(name: str, usual: T) -> tuple[T, ...]:
        return tuple(row[name]) if row[name] else (usual,) * n

    return Recipients(
        client_ids=ids,
        attempts=column("attempts", 0),
        uncounted=column("uncounted", 0),
        maybe_sent=(True,) * n if row["reclaimed"] else column("maybe_sent", False),
        phones=column("phones", None),
        skip_reasons=column("skip_reasons", 0),
        opens_at=column("opens_at", None),
        closes_in=column("closes_in", None),
        overdue=column("overdue", False),
        texts=(mailing.text,) * n,
    )


def _with_texts(recipients: Recipients, row: asyncpg.Record, render: Render) -> Recipients:
    about = [row[name] for name in ("operator_codes", "tags", "timezones", "attributes")]
    phones = [phone for phone in recipients.phones if phone is not None]
    if len(phones) == len(recipients) and (all_texts := render.all_texts([phones, *about[:3]])) is not None:
        return replace(recipients, texts=tuple(all_texts))
    rendered = [_rendered(phone, value, render) for phone, *value in zip(recipients.phones, *about, strict=True)]
    texts, reasons, values = zip(*rendered, strict=True)
    if any(reasons):
        both = zip(recipients.skip_reasons, reasons, strict=True)
        recipients = replace(recipients, skip_reasons=tuple(one or other for one, other in both))
    return replace(recipients, texts=texts, values=values if any(values) else ())


def _with_gone(recipients: Recipients, row: asyncpg.Record, mailing: Mailing, text: str) -> Recipients:
    """Return the same with the messages whose clients are gone, which nobody has tried, by ascending client id."""
    reason = Reason.NONE if mailing.audience is None else Reason.NO_LONGER_MATCHES
    gone = [
        Recipient(client_id, 0, 0, row["reclaimed"], None, reason, None, None, bool(row["overdue"]), text)
        for client_id in row["gone"]
    ]
    all_of_it: list[Recipient] = [*recipients, *gone]
    return Recipients.of(sorted(all_of_it))


def _rendered(phone: str | None, values: Sequence[str], render: Render) -> RenderedText:
    """Return the text for a client; one who is gone gets none."""
    if phone is None:
        return _NO_TEXT
    operator_code, tag, timezone, attributes = values
    return render(phone, operator_code, tag, timezone, orjson.loads(attributes))
