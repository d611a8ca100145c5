"""Mailings and their progress ↔ their messages."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from dispatcher.model.states import AudienceMode, Semantics
from mailing.v1 import mailing_pb2
from server.api.encoding.filters import filter_message, filter_of
from server.api.encoding.timetables import civil_message, civil_time_of, hours_message, sending_hours_of
from server.api.encoding.wellknown import duration, number_of, span_of, time_of, timestamp
from server.domain.mailings import Mailing, MailingDefinition, Progress, RetryRule, check_mailing
from server.domain.validation import Violations

_DEFAULTS = RetryRule()


def definition_of(message: mailing_pb2.Mailing, violations: Violations) -> MailingDefinition:
    """Return the caller's definition of a mailing, unchecked; report what cannot be converted."""
    start = end = local_start = None
    if message.HasField("local_start"):
        local_start = civil_time_of(message.local_start, "mailing.local_start", violations)
    if message.HasField("start_time"):
        start = time_of(message.start_time, "mailing.start_time", violations)
    if message.HasField("end_time"):
        end = time_of(message.end_time, "mailing.end_time", violations)
    mode = message.audience_mode or AudienceMode.OPEN
    semantics = message.semantics or Semantics.AT_LEAST_ONCE
    return MailingDefinition(
        text=message.text,
        title=message.title,
        filter=filter_of(message.filter, "mailing.filter", violations),
        start_time=start,
        end_time=end,
        audience_mode=number_of(AudienceMode, mode, "mailing.audience_mode", violations) or AudienceMode.OPEN,
        semantics=number_of(Semantics, semantics, "mailing.semantics", violations) or Semantics.AT_LEAST_ONCE,
        priority=message.priority,
        max_rate=message.max_rate,
        max_per_day=message.max_per_day,
        max_per_day_timezone=message.max_per_day_timezone,
        endpoint=message.endpoint,
        retry=_retry_of(message.retry, violations) if message.HasField("retry") else _DEFAULTS,
        labels=dict(message.labels),
        important=message.important,
        sending_hours=sending_hours_of(message.sending_hours, "mailing.sending_hours", violations),
        holidays=message.holidays,
        local_start=local_start,
        skip_after=_skip_after(message, violations),
    )


def new_definition(message: mailing_pb2.Mailing, zones: Collection[str], violations: Violations) -> MailingDefinition:
    """Return the checked definition of a mailing that is not stored; report every violation."""
    definition = definition_of(message, violations)
    check_mailing(definition, zones, violations)
    return definition


def _skip_after(message: mailing_pb2.Mailing, violations: Violations) -> timedelta | None:
    return span_of(message.skip_after, "mailing.skip_after", violations) if message.HasField("skip_after") else None


def _retry_of(message: mailing_pb2.RetryPolicy, violations: Violations) -> RetryRule:
    initial = _span_or(message, "initial_backoff", _DEFAULTS.initial_backoff, violations)
    largest = _span_or(message, "max_backoff", max(initial, _DEFAULTS.max_backoff), violations)
    return RetryRule(message.max_attempts or _DEFAULTS.max_attempts, initial, largest)


def _span_or(message: mailing_pb2.RetryPolicy, name: str, default: timedelta, violations: Violations) -> timedelta:
    populated = {descriptor.name: value for descriptor, value in message.ListFields()}
    value = populated.get(name)
    if not isinstance(value, Duration):
        return default
    span = span_of(value, f"mailing.retry.{name}", violations)
    return default if span is None else span


def mailing_message(mailing: Mailing) -> mailing_pb2.Mailing:
    """Return a stored mailing as its message."""
    message = definition_message(mailing.definition)
    stored = mailing_pb2.Mailing(
        id=mailing.id,
        state=mailing_pb2.Mailing.State.ValueType(mailing.state),
        progress=_progress_message(mailing.progress),
        etag=mailing.etag,
        create_time=timestamp(mailing.created_at),
        update_time=timestamp(mailing.updated_at),
        schedule_id=mailing.schedule_id,
        occurrence_time=timestamp(mailing.occurrence_at),
        begin_time=timestamp(mailing.begins_at),
    )
    message.MergeFrom(stored)
    return message


def definition_message(definition: MailingDefinition) -> mailing_pb2.Mailing:
    """Return what callers set of a mailing as its message."""
    return mailing_pb2.Mailing(
        title=definition.title,
        text=definition.text,
        filter=filter_message(definition.filter),
        start_time=timestamp(definition.start_time),
        end_time=timestamp(definition.end_time),
        audience_mode=mailing_pb2.Mailing.AudienceMode.ValueType(definition.audience_mode),
        semantics=mailing_pb2.Mailing.Semantics.ValueType(definition.semantics),
        priority=definition.priority,
        max_rate=definition.max_rate,
        max_per_day=definition.max_per_day,
        max_per_day_timezone=definition.max_per_day_timezone,
        endpoint=definition.endpoint,
        retry=_retry_message(definition.retry),
        labels=definition.labels,
        important=definition.important,
        sending_hours=map(hours_message, definition.sending_hours),
        holidays=definition.holidays,
        local_start=civil_message(definition.local_start),
        skip_after=duration(definition.skip_after),
    )


def _retry_message(retry: RetryRule) -> mailing_pb2.RetryPolicy:
    return mailing_pb2.RetryPolicy(
        max_attempts=retry.max_attempts,
        initial_backoff=duration(retry.initial_backoff),
        max_backoff=duration(retry.max_backoff),
    )


def _progress_message(progress: Progress) -> mailing_pb2.MailingProgress:
    return mailing_pb2.MailingProgress(
        total=progress.total,
        pending=progress.pending,
        delivered=progress.delivered,
        failed=progress.failed,
        expired=progress.expired,
        cancelled=progress.cancelled,
        skipped=progress.skipped,
        unknown=progress.unknown,
        attempts=progress.attempts,
        first_delivery_time=timestamp(progress.first_delivered_at),
        last_delivery_time=timestamp(progress.last_delivered_at),
        rate_per_second=progress.rate,
        estimated_finish_time=timestamp(progress.estimated_finish_at),
        expanded=progress.expanded,
        receipts=None if progress.receipts is None else mailing_pb2.ReceiptCounts(**progress.receipts._asdict()),
    )
