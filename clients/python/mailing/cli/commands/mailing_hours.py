"""The options that say when a mailing may send, as people write them: `mon-fri 09:00-18:00 Europe/Berlin`."""

from __future__ import annotations

from mailing import new_local_time, new_window
from mailing.builders import parse_moment
from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.day_of_week_pb2 import DayOfWeek
from mailing.v1.mailing_pb2 import SendingHours

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = "[DAYS] HH:MM-HH:MM [ZONE], such as 'mon-fri 09:00-18:00' or 'sat,sun 22:00-02:00 Europe/Berlin'"


def parse_hours(text: str) -> SendingHours:
    """Return sending hours from text; an end at or before the start is on the next day. Raise ValueError."""
    days, _, rest = text.strip().partition(" ")
    if days[:1].isdigit():
        days, rest = "", text.strip()
    times, _, zone = rest.strip().partition(" ")
    start, dash, end = times.partition("-")
    try:
        if not dash:
            raise ValueError(text)
        window = new_window(start, end)
        weekdays = [day for part in days.lower().split(",") if part for day in _days(part)]
    except ValueError:
        raise ValueError(f"{text!r} is not {_FORM}") from None
    hours = SendingHours(start=window.start, duration=window.duration, timezone=zone.strip())
    hours.weekdays.extend(map(DayOfWeek.ValueType, sorted(set(weekdays))))
    return hours


def _days(part: str) -> list[int]:
    """Return the days of `mon` or of `fri-mon`, 1 to 7. Raise ValueError."""
    first, dash, last = part.partition("-")
    begin, end = _DAYS.index(first), _DAYS.index(last if dash else first)
    return [(begin + n) % 7 + 1 for n in range((end - begin) % 7 + 1)]


def parse_local_start(text: str) -> CivilDateTime:
    """Return a date and time on every clock, from "tomorrow 10:00" or "2030-01-31 10:00". Raise ValueError."""
    try:
        return new_local_time(text)
    except ValueError:
        if text[:1].isdigit() or text[:1] in ("+", "") or text == "now":
            raise
        return new_local_time(parse_moment(text).replace(tzinfo=None))
