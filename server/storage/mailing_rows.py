"""Mailings as rows: the one place that knows which column holds which field."""

from __future__ import annotations

import asyncpg
import orjson

from dispatcher.model.states import AudienceMode, MailingState, Semantics
from server.domain.clients import ClientFilter
from server.domain.mailings import Mailing, MailingDefinition, Progress, RetryRule, estimated_finish

_COUNTERS = ("total", "pending", "delivered", "failed", "expired", "cancelled", "skipped", "unknown", "attempts")


def definition_arguments(definition: MailingDefinition) -> tuple[object, ...]:
    """Return the definition as the arguments behind the id in insert_mailing and update_mailing."""
    return (
        definition.title,
        definition.text,
        orjson.dumps(definition.filter.as_json()).decode(),
        definition.start_time,
        definition.end_time,
        definition.audience_mode,
        definition.semantics,
        definition.priority,
        definition.max_rate,
        definition.endpoint,
        definition.retry.max_attempts,
        definition.retry.initial_backoff,
        definition.retry.max_backoff,
        orjson.dumps(dict(definition.labels)).decode(),
        definition.important,
    )


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
    )


def _definition_of(row: asyncpg.Record) -> MailingDefinition:
    return MailingDefinition(
        title=row["title"],
        text=row["text"],
        filter=filter_of(row["filter"]),
        start_time=row["starts_at"],
        end_time=row["ends_at"],
        audience_mode=AudienceMode(row["audience_mode"]),
        semantics=Semantics(row["semantics"]),
        priority=row["priority"],
        max_rate=row["max_rate"],
        endpoint=row["endpoint"],
        retry=RetryRule(row["max_attempts"], row["initial_backoff"], row["max_backoff"]),
        labels=orjson.loads(row["labels"]),
        important=row["important"],
    )


def filter_of(text: str) -> ClientFilter:
    """Return the filter that `ClientFilter.as_json` was stored from."""
    fields = orjson.loads(text)
    return ClientFilter(
        tags=tuple(fields.get("tags", ())),
        operator_codes=tuple(fields.get("operator_codes", ())),
        timezones=tuple(fields.get("timezones", ())),
        attributes=fields.get("attributes", {}),
        client_ids=tuple(fields.get("client_ids", ())),
    )


def _progress_of(row: asyncpg.Record) -> Progress:
    return Progress(
        **{name: row[name] for name in _COUNTERS},
        first_delivered_at=row["first_delivered_at"],
        last_delivered_at=row["last_delivered_at"],
        rate=row["rate"],
        estimated_finish_at=estimated_finish(row["pending"], row["rate"], row["read_at"]),
        expanded=row["expanded"],
    )
