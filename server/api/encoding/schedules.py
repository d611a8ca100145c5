"""Schedules ↔ their messages, and their templates ↔ the JSON of a mailing's message."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.json_format import MessageToJson, Parse

from mailing.v1 import mailing_pb2, schedule_pb2
from server.api.encoding.mailings import definition_message, definition_of
from server.api.encoding.wellknown import duration, not_written, number_of, span_of, timestamp
from server.domain.mailings import MAILING_FIELDS, MailingDefinition
from server.domain.schedules import DEFAULT_CATCH_UP, Overlap, Schedule, ScheduleDefinition, TemplateCodec, report_below
from server.domain.validation import Violations


def schedule_definition_of(message: schedule_pb2.Schedule, violations: Violations) -> ScheduleDefinition:
    """Return the caller's definition of a schedule, unchecked; report what cannot be converted."""
    inner = Violations()
    mailing = definition_of(message.mailing, inner)
    report_below(inner, violations)
    overlap = number_of(Overlap, message.overlap or Overlap.SKIP, "schedule.overlap", violations)
    return ScheduleDefinition(
        mailing=mailing,
        timezone=message.timezone,
        title=message.title,
        cron=message.cron,
        rrule=message.rrule,
        end_after=_span(message, "end_after", None, violations),
        overlap=overlap or Overlap.SKIP,
        catch_up=_span(message, "catch_up", DEFAULT_CATCH_UP, violations) or timedelta(0),
    )


def _span(
    message: schedule_pb2.Schedule, name: str, default: timedelta | None, violations: Violations
) -> timedelta | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return default
    return span_of(getattr(message, name), f"schedule.{name}", violations)


def changed_parts(fields: frozenset[str], violations: Violations) -> frozenset[str]:
    """Return the fields of an update without parts of the template that are only read; report unknown parts."""
    read_only = not_written(mailing_pb2.Mailing.DESCRIPTOR)
    chosen = set()
    for path in fields:
        part = path.removeprefix("mailing.").partition(".")[0]
        if not path.startswith("mailing.") or part in MAILING_FIELDS:
            chosen.add(path)
        elif part not in read_only:
            names = ", ".join(MAILING_FIELDS)
            violations.add("update_mask", f"{path[:80]!r} cannot be updated; of the mailing can {names}")
    return frozenset(chosen)


def schedule_message(schedule: Schedule) -> schedule_pb2.Schedule:
    """Return a stored schedule as its message."""
    definition = schedule.definition
    message = schedule_pb2.Schedule(
        id=schedule.id,
        title=definition.title,
        mailing=definition_message(definition.mailing),
        timezone=definition.timezone,
        end_after=duration(definition.end_after),
        overlap=schedule_pb2.Schedule.Overlap.ValueType(definition.overlap),
        catch_up=duration(definition.catch_up),
        paused=schedule.paused,
        next_times=[one for moment in schedule.next_times if (one := timestamp(moment))],
        last_mailing_id=schedule.last_mailing_id,
        etag=schedule.etag if schedule.id else "",
        create_time=timestamp(schedule.created_at),
        update_time=timestamp(schedule.updated_at),
    )
    if definition.rrule:
        message.rrule = definition.rrule
    else:
        message.cron = definition.cron
    return message


def _template_text(mailing: MailingDefinition) -> str:
    return MessageToJson(definition_message(mailing), indent=None)


def _template_of(text: str) -> MailingDefinition:
    """Return the mailing of a stored template. What a later release wrote into it is left out."""
    message = Parse(text, mailing_pb2.Mailing(), ignore_unknown_fields=True)
    return definition_of(message, Violations())


TEMPLATES = TemplateCodec(_template_text, _template_of)
"""How templates are stored."""
