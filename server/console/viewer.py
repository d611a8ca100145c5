"""How one person sees the console: language, time zone, and how numbers, times and spans are written for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from babel.dates import format_datetime, format_skeleton
from babel.numbers import format_decimal, format_percent
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.v1.civil_date_time_pb2 import CivilDateTime

LANGUAGES = {"en": "English", "ru": "Русский"}
"""The languages that there are catalogues of; the first is that of the source."""

THEMES = ("auto", "light", "dark")


@dataclass(frozen=True, slots=True)
class Viewer:
    """What a person chose, or their browser says."""

    language: str = "en"
    zone: str = "UTC"
    theme: str = "auto"

    def number(self, value: float, digits: int = 0) -> str:
        """Write a number with the language's separators."""
        return str(format_decimal(round(value, digits), locale=self.language))

    def rate(self, value: float) -> str:
        """Write messages per second: exact while there are few."""
        return self.number(value, 1 if 0 < value < 10 else 0)

    def percent(self, part: float, whole: float) -> str:
        """Write a part of a whole; a part that is not all is never 100 %."""
        share = part / whole if whole else 0.0
        if 0.999 <= share < 1:
            share = 0.999
        pattern = "0.#%" if 0 < share < 0.1 or share == 0.999 else "0%"
        return str(format_percent(share, format=pattern, locale=self.language))

    def moment(self, value: Timestamp, seconds: bool = True) -> str:
        """Write a time in the person's zone; nothing for one that is not set."""
        return self.written(value.ToDatetime(UTC), seconds) if value.seconds else ""

    def written(self, value: datetime, seconds: bool = True) -> str:
        """Write a time in the person's zone, with the day unless it is today."""
        local = value.astimezone(zone_of(self.zone))
        today = datetime.now(local.tzinfo).date()
        clock = "HH:mm:ss" if seconds else "HH:mm"
        if local.date() == today:
            return str(format_datetime(local, clock, locale=self.language))
        day = format_skeleton("MMMd" if local.year == today.year else "yMMMd", local, locale=self.language)
        return f"{day}, {format_datetime(local, clock, locale=self.language)}"

    def civil(self, value: CivilDateTime) -> str:
        """Write a date and a time that are not of one zone."""
        local = civil_time(value)
        day = format_skeleton("yMMMd", local, locale=self.language)
        return f"{day}, {format_datetime(local, 'HH:mm', locale=self.language)}"

    def in_zone(self, value: Timestamp, zone: str) -> str:
        """Write a time of day in another zone, such as a client's."""
        local = value.ToDatetime(UTC).astimezone(zone_of(zone))
        return str(format_datetime(local, "HH:mm", locale=self.language)) if value.seconds else ""

    def form_time(self, value: Timestamp) -> str:
        """Write a time as the value of a form's field of date and time."""
        return f"{value.ToDatetime(UTC).astimezone(zone_of(self.zone)):%Y-%m-%dT%H:%M}" if value.seconds else ""

    def parse_time(self, text: str) -> datetime:
        """Read such a value. Raise ValueError."""
        try:
            return datetime.fromisoformat(text).replace(tzinfo=zone_of(self.zone))
        except ValueError:
            raise ValueError("must be a date and a time") from None


def span(value: Duration | timedelta | float) -> str:
    """Write a span with its two largest units, such as `2h 5m`, `1.5s` or `40ms`."""
    seconds = value.ToTimedelta().total_seconds() if isinstance(value, Duration) else value
    seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms" if seconds else "0s"
    if seconds < 60:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    units = [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")]
    parts = [
        (whole // size % (limit or whole + 1), unit) for (size, unit), limit in zip(units, (0, 24, 60, 60), strict=True)
    ]
    return " ".join([f"{count}{unit}" for count, unit in parts if count][:2])


def civil_time(value: CivilDateTime) -> datetime:
    """Return a date and a time of day as a datetime without a zone."""
    return datetime(value.year, value.month, value.day, value.hours, value.minutes, value.seconds)


def form_civil(value: CivilDateTime) -> str:
    """Write a date and a time that are not of one zone as the value of a form's field."""
    return civil_time(value).isoformat(timespec="minutes")


def form_span(value: Duration) -> str:
    """Write a span of whole seconds as the value of a form's field, such as `1h30m`; nothing of it is left out."""
    rest, parts = value.seconds, list[str]()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


@lru_cache(maxsize=600)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone, UTC for a name that is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):
        return ZoneInfo("UTC")


def viewer_of(cookies: Mapping[str, str], accepted: str) -> Viewer:
    """Return how a request wants its page: by its cookies, else by Accept-Language."""
    language = cookies.get("language", "")
    theme = cookies.get("theme", "")
    return Viewer(
        language if language in LANGUAGES else _preferred(accepted),
        zone_of(cookies.get("zone", "UTC").replace("%2F", "/")).key,
        theme if theme in THEMES else "auto",
    )


def _preferred(accepted: str) -> str:
    """Return the language that an Accept-Language header likes best."""
    best, weight = next(iter(LANGUAGES)), 0.0
    for entry in accepted.split(","):
        name, _, quality = entry.strip().partition(";q=")
        base = name.split("-")[0].lower()
        try:
            liked = float(quality or 1)
        except ValueError:
            continue
        if base in LANGUAGES and liked > weight:
            best, weight = base, liked
    return best
