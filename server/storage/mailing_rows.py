"""Mailings and their filters as rows and parameters: which column or parameter holds which field."""

from __future__ import annotations

import asyncpg
import orjson

from dispatcher.model.states import AudienceMode, MailingState, Semantics
from server.domain.filters import filter_from_json
from server.domain.mailings import Mailing, MailingDefinition, Progress, ReceiptTotals, RetryRule, estimated_finish
from server.domain.timetables import SendingHours

_COUNTERS = ("total", "pending", "delivered", "failed", "expired", "cancelled", "skipped", "unknown", "attempts")


def definition_arguments(definition: MailingDefinition, audience: str | None) -> dict[str, object]:
    """Return the parameters of insert_mailing and update_mailing, except for the id; `audience` is the column's."""
    return {
        "audience": audience,
        "title": definition.title,
        "text": definition.text,
        "filter": orjson.dumps(definition.filter.as_json()).decode(),
        "start_time": definition.start_time,
        "end_time": definition.end_time,
        "audience_mode": definition.audience_mode,
        "semantics": definition.semantics,
        "priority": definition.priority,
        "max_rate": definition.max_rate,
        "max_per_day": definition.max_per_day,
        "max_per_day_timezone": definition.max_per_day_timezone,
        "endpoint": definition.endpoint,
        "max_attempts": definition.retry.max_attempts,
        "initial_backoff": definition.retry.initial_backoff,
        "max_backoff": definition.retry.max_backoff,
        "labels": orjson.dumps(dict(definition.labels)).decode(),
        "important": definition.important,
        "sending_hours": orjson.dumps([hours.as_json() for hours in definition.sending_hours]).decode(),
        "holidays": definition.holidays,
        "local_start": definition.local_start,
        "skip_after": definition.skip_after,
    }


def mailing_of(row: asyncpg.Record) -> Mailing:
    """Return the mailing of a row, with its progress if the row has it."""
    return Mailing(
        id=row["id"],
        definition=_definition_of(row),
        state=MailingState(row["state"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        progress=_progress_of(row) if "total" in row else Progress(),
        schedule_id=row["schedule_id"] or 0,
        occurrence_at=row["occurrence_at"],
        begins_at=row["begins_at"] if row["local_start"] else row["starts_at"],
    )


def _definition_of(row: asyncpg.Record) -> MailingDefinition:
    return MailingDefinition(
        title=row["title"],
        text=row["text"],
        filter=filter_from_json(orjson.loads(row["filter"])),
        start_time=None if row["local_start"] else row["starts_at"],
        end_time=row["ends_at"],
        audience_mode=AudienceMode(row["audience_mode"]),
        semantics=Semantics(row["semantics"]),
        priority=row["priority"],
        max_rate=row["max_rate"],
        max_per_day=row["max_per_day"],
        max_per_day_timezone=row["max_per_day_timezone"],
        endpoint=row["endpoint"],
        retry=RetryRule(row["max_attempts"], row["initial_backoff"], row["max_backoff"]),
        labels=orjson.loads(row["labels"]),
        important=row["important"],
        sending_hours=tuple(map(SendingHours.from_json, orjson.loads(row["sending_hours"]))),
        holidays=row["holidays"],
        local_start=row["local_start"],
        skip_after=row["skip_after"],
    )


def _progress_of(row: asyncpg.Record) -> Progress:
    receipts = ReceiptTotals(*[row[f"receipts_{name}"] for name in ReceiptTotals._fields])
    return Progress(
        **{name: row[name] for name in _COUNTERS},
        first_delivered_at=row["first_delivered_at"],
        last_delivered_at=row["last_delivered_at"],
        rate=row["rate"],
        estimated_finish_at=estimated_finish(row["pending"], row["rate"], row["read_at"]),
        expanded=row["expanded"],
        receipts=receipts if any(receipts) else None,
    )
