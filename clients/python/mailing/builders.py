"""Builders of protobuf messages from plain Python values.

A caller writes times of day as "09:00", windows as a start and an end, moments as datetime or
RFC 3339, spans as timedelta or "1h30m". A value that cannot be read raises ValueError with a
sentence; everything else is left for the service to check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.phones import phone_digits
from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.client_pb2 import Client, ClientFilter, ReceiveWindow
from mailing.v1.dispatch_pb2 import DispatchSettings
from mailing.v1.mailing_pb2 import Mailing, RetryPolicy
from mailing.v1.schedule_pb2 import Schedule
from mailing.v1.time_of_day_pb2 import TimeOfDay

Span = timedelta | float | str
"""A timedelta, seconds, or text such as "1h30m"."""

SECONDS_PER_DAY = 86_400

_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_PHONE = re.compile(r"[1-9]\d{6,14}", re.ASCII)
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII)

_WORDS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "today", "tomorrow")
_DAY = re.compile(rf"({'|'.join(_WORDS)}) (\d{{1,2}}):(\d\d)")


def new_time_of_day(value: str | time) -> TimeOfDay:
    """Return a local time of day from a `datetime.time` or from "9:00", "09:00" or "09:00:30"."""
    if isinstance(value, time):
        return TimeOfDay(hours=value.hour, minutes=value.minute, seconds=value.second)
    match = _TIME_OF_DAY.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a time of day such as 09:00 or 09:00:30")
    hours, minutes, seconds = match.groups()
    return TimeOfDay(hours=int(hours), minutes=int(minutes), seconds=int(seconds or 0))


def new_window(start: str | time, end: str | time) -> ReceiveWindow:
    """Return the daily window from `start` to `end`, local times of day.

    An end at or before the start is on the next day: 22:00 to 06:00 crosses midnight,
    and equal times mean the whole day.
    """
    opens, closes = new_time_of_day(start), new_time_of_day(end)
    seconds = (_seconds(closes) - _seconds(opens)) % SECONDS_PER_DAY or SECONDS_PER_DAY
    return ReceiveWindow(start=opens, duration=Duration(seconds=seconds))


def window_times(window: ReceiveWindow) -> tuple[str, str]:
    """Return start and end of a window as "HH:MM", with ":SS" where needed: the inverse of `new_window`."""
    start = _seconds(window.start)
    return _clock(start), _clock((start + window.duration.seconds) % SECONDS_PER_DAY)


def new_duration(value: Span) -> Duration:
    """Return a span from a timedelta, from seconds, or from text such as "90s", "1h30m" or "2d"."""
    if isinstance(value, str):
        value = parse_span(value)
    duration = Duration()
    duration.FromTimedelta(value if isinstance(value, timedelta) else timedelta(seconds=value))
    return duration


def new_dispatch_settings(
    *,
    poll_min: Span | None = None,
    poll_max: Span | None = None,
    recheck_min: Span | None = None,
    recheck_max: Span | None = None,
    max_concurrency: int | None = None,
) -> DispatchSettings:
    """Return settings with the given fields set and no others."""
    spans = {"poll_min": poll_min, "poll_max": poll_max, "recheck_min": recheck_min, "recheck_max": recheck_max}
    settings = DispatchSettings(max_concurrency=max_concurrency or 0)
    for name, span in spans.items():
        if span is not None:
            getattr(settings, name).CopyFrom(new_duration(span))
    return settings


def parse_span(text: str) -> timedelta:
    """Return a span of days, hours, minutes, seconds and milliseconds, in this order: "2d", "1h30m", "500ms"."""
    match = _SPAN.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a span such as 90s, 10m, 1h30m or 2d")
    days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    except OverflowError:
        raise ValueError(f"{text!r} is too long") from None


def new_timestamp(value: datetime | str) -> Timestamp:
    """Return a moment from a datetime or from text: see `parse_moment`.

    A datetime without a zone is local to this machine.
    """
    timestamp = Timestamp()
    try:
        timestamp.FromDatetime((parse_moment(value) if isinstance(value, str) else value).astimezone(UTC))
    except OverflowError:
        raise ValueError(f"{value} is out of range") from None
    return timestamp


def parse_moment(text: str, now: datetime | None = None) -> datetime:
    """Return the moment of "now", a span from now such as "+10m" or "+1h30m", or RFC 3339 such as 2030-01-31T09:00:00Z.

    Days may be words, as in "today 18:00", "tomorrow 10:00" and "monday 9:00", the next one. Without a zone, as in
    "2030-01-31 09:00", it is local to this machine.
    """
    now = now or datetime.now(UTC)
    try:
        if text == "now":
            return now
        if named := _DAY.fullmatch(text.lower()):
            return _on_day(named[1], time(int(named[2]), int(named[3])), now.astimezone())
        return now + parse_span(text[1:]) if text.startswith("+") else datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a moment such as 2030-01-31T09:00:00Z, 2030-01-31 09:00 (local time), "
            "tomorrow 10:00, +10m or now"
        ) from None


def _on_day(word: str, at: time, now: datetime) -> datetime:
    """Return a local time of today, of tomorrow, or of the next day of the week with this name."""
    days = _WORDS.index(word) - 7 if word in _WORDS[7:] else (_WORDS.index(word) - now.weekday() - 1) % 7 + 1
    return datetime.combine(now.date() + timedelta(days=days), at).astimezone()


def new_local_time(value: datetime | str) -> CivilDateTime:
    """Return a date and a time of day without a zone, from a datetime or from text such as "2030-01-31T09:30:00"."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value!r} is not a local time such as 2030-01-31T09:30:00") from None
    if at.tzinfo is not None:
        raise ValueError(f"{value!r} has a zone; a local time such as 2030-01-31T09:30:00 has none")
    return CivilDateTime(year=at.year, month=at.month, day=at.day, hours=at.hour, minutes=at.minute, seconds=at.second)


def new_phone(text: str) -> str:
    """Return the digits of an international number as people write it, such as "+7 (916) 123-45-67"."""
    digits = phone_digits(text)
    if not _PHONE.fullmatch(digits):
        raise ValueError(f"{text!r} is not an international phone number of 7 to 15 digits such as +79161234567")
    return digits


def new_client(
    phone: str,
    timezone: str,
    *,
    operator_code: str = "",
    tag: str = "",
    window: ReceiveWindow | tuple[str | time, str | time] | None = None,
    attributes: Mapping[str, str] | None = None,
    opted_out: bool | None = None,
) -> Client:
    """Return a client; `window` may be given as a start and an end, as in ("09:00", "21:00").

    `opted_out` False takes an opt-out back where the client is stored; None does not speak of it.
    """
    return Client(
        phone=phone,
        timezone=timezone,
        operator_code=operator_code,
        tag=tag,
        receive_window=new_window(*window) if isinstance(window, tuple) else window,
        attributes=attributes,
        opted_out=opted_out,
    )


def new_filter(
    *,
    tags: Iterable[str] = (),
    operator_codes: Iterable[str] = (),
    timezones: Iterable[str] = (),
    attributes: Mapping[str, str] | None = None,
    client_ids: Iterable[int] = (),
) -> ClientFilter:
    """Return a filter: any value of a field matches, every given field must; without any, all clients match."""
    return ClientFilter(
        tags=tags, operator_codes=operator_codes, timezones=timezones, attributes=attributes, client_ids=client_ids
    )


def new_mailing(
    text: str,
    *,
    title: str = "",
    filter: ClientFilter | None = None,  # noqa: A002 - the field's name in the contract
    filter_text: str = "",
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    snapshot: bool = False,
    at_most_once: bool = False,
    priority: int = 0,
    max_rate: float = 0.0,
    max_per_day: int = 0,
    max_per_day_timezone: str = "",
    endpoint: str = "",
    retry: RetryPolicy | None = None,
    labels: Mapping[str, str] | None = None,
    important: bool = False,
) -> Mailing:
    """Return a mailing; without a start it starts now, without a filter it is sent to all clients.

    The filter may be a text instead, such as `tag = "vip" AND NOT got(17)`.
    """
    return Mailing(
        text=text,
        title=title,
        filter=filter,
        filter_text=filter_text,
        start_time=None if start is None else new_timestamp(start),
        end_time=None if end is None else new_timestamp(end),
        audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT if snapshot else Mailing.AUDIENCE_MODE_UNSPECIFIED,
        semantics=Mailing.SEMANTICS_AT_MOST_ONCE if at_most_once else Mailing.SEMANTICS_UNSPECIFIED,
        priority=priority,
        max_rate=max_rate,
        max_per_day=max_per_day,
        max_per_day_timezone=max_per_day_timezone,
        endpoint=endpoint,
        retry=retry,
        labels=labels,
        important=important,
    )


def new_schedule(
    mailing: Mailing,
    timezone: str,
    *,
    cron: str = "",
    rrule: str = "",
    title: str = "",
    end_after: Span | None = None,
    overlap: Schedule.Overlap.ValueType = Schedule.OVERLAP_UNSPECIFIED,
    catch_up: Span | None = None,
) -> Schedule:
    """Return a schedule that makes `mailing` at the times of `cron` or of `rrule` in a zone.

    `rrule` may have its lines parted by a backslash and an n, as it is written on a command line.
    """
    schedule = Schedule(
        mailing=mailing,
        timezone=timezone,
        title=title,
        end_after=None if end_after is None else new_duration(end_after),
        overlap=overlap,
        catch_up=None if catch_up is None else new_duration(catch_up),
    )
    if rrule:
        schedule.rrule = rrule.replace("\\n", "\n")
    else:
        schedule.cron = cron
    return schedule


def _seconds(value: TimeOfDay) -> int:
    return value.hours * 3600 + value.minutes * 60 + value.seconds


def _clock(seconds: int) -> str:
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}"
    return f"{text}:{seconds % 60:02}" if seconds % 60 else text
