"""Sending hours as people write them, such as `mon-fri 09:00-18:00 Europe/Berlin`: read, and written the same way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mailing.builders import new_window, window_times
from mailing.v1.client_pb2 import ReceiveWindow
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


def hours_text(hours: SendingHours) -> str:
    """Return the text that `parse_hours` reads as these hours."""
    times = "-".join(window_times(ReceiveWindow(start=hours.start, duration=hours.duration)))
    days = ",".join(_runs(sorted(set(hours.weekdays))))
    return " ".join(part for part in (days, times, hours.timezone) if part)


def _days(part: str) -> list[int]:
    """Return the days of `mon` or of `fri-mon`, 1 to 7. Raise ValueError."""
    first, dash, last = part.partition("-")
    begin, end = _DAYS.index(first), _DAYS.index(last if dash else first)
    return [(begin + n) % 7 + 1 for n in range((end - begin) % 7 + 1)]


def _runs(weekdays: Sequence[int]) -> Iterator[str]:
    """Yield the days, three and more that follow each other as one: `mon-fri`, `sat`, `sun`."""
    left = list(weekdays)
    while left:
        length = next((n for n in range(len(left), 2, -1) if left[n - 1] - left[0] == n - 1), 1)
        run, left = left[:length], left[length:]
        yield _DAYS[run[0] - 1] if length == 1 else f"{_DAYS[run[0] - 1]}-{_DAYS[run[-1] - 1]}"
