"""Sending hours and local times ↔ their messages. Paths of violations are those of the request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.day_of_week_pb2 import DayOfWeek
from mailing.v1.mailing_pb2 import SendingHours as Message
from server.api.encoding.wellknown import duration, span_of, time_message, time_of_day
from server.domain.timetables import SendingHours
from server.domain.validation import Violations


def sending_hours_of(messages: Sequence[Message], path: str, violations: Violations) -> tuple[SendingHours, ...]:
    """Return the hours, otherwise unchecked; report what cannot be converted and what is missing."""
    found = [_hours_of(message, f"{path}[{index}]", violations) for index, message in enumerate(messages)]
    return tuple(hours for hours in found if hours is not None)


def _hours_of(message: Message, path: str, violations: Violations) -> SendingHours | None:
    start, length = None, timedelta(0)
    if message.HasField("start"):
        start = time_of_day(message.start, f"{path}.start", violations)
    else:
        violations.add(f"{path}.start", "is required: the time of day at which the hours begin")
    if message.HasField("duration"):
        length = span_of(message.duration, f"{path}.duration", violations) or timedelta(0)
    else:
        violations.add(f"{path}.duration", "is required: how long it stays open, more than 0 and at most 24 hours")
    for index, weekday in enumerate(message.weekdays):
        if weekday not in range(1, 8):
            violations.add(f"{path}.weekdays[{index}]", "must be a day of the week, from 1 (Monday) to 7 (Sunday)")
    if start is None or not message.HasField("duration"):
        return None
    weekdays = tuple(sorted({int(day) for day in message.weekdays if day in range(1, 8)}))
    return SendingHours(weekdays, start, length, message.timezone)


def hours_message(hours: SendingHours) -> Message:
    """Return the hours as their message."""
    return Message(
        weekdays=map(DayOfWeek.ValueType, hours.weekdays),
        start=time_message(hours.start),
        duration=duration(hours.duration),
        timezone=hours.timezone,
    )


def civil_time_of(message: CivilDateTime, path: str, violations: Violations) -> datetime | None:
    """Return the date and time of a clock; report what is none, and years that are out of range."""
    try:
        local = datetime(message.year, message.month, message.day, message.hours, message.minutes, message.seconds)
    except ValueError:
        violations.add(path, "is not a date with a time of day")
        return None
    if not 2000 <= local.year <= 9998:
        violations.add(f"{path}.year", "must be from 2000 to 9998")
        return None
    return local


def civil_message(local: datetime | None) -> CivilDateTime | None:
    """Return the date and time for a message; None leaves the field unset."""
    if local is None:
        return None
    return CivilDateTime(
        year=local.year,
        month=local.month,
        day=local.day,
        hours=local.hour,
        minutes=local.minute,
        seconds=local.second,
    )
