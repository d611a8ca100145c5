"""Makes examples/clients.csv: 10,000 invented clients, always the same ones.

    python examples/make_clients.py > examples/clients.csv

The phones begin with +7 0, a range that no operator has, so nobody can be reached by
accident. Clients tagged `news` or `vip` may receive at any hour: the demo, which writes to
them, works at any time of day. All others have windows, some of which cross midnight.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator
from typing import TextIO

SEED = 20_240_229
COUNT = 10_000
HEADER = (
    "phone",
    "operator_code",
    "tag",
    "timezone",
    "window_start",
    "window_end",
    "attributes.name",
    "attributes.city",
)

# Whole, half and quarter hours from UTC, both hemispheres, with and without summer time.
CITIES = {
    "Kaliningrad": "Europe/Kaliningrad",
    "Moscow": "Europe/Moscow",
    "Samara": "Europe/Samara",
    "Yekaterinburg": "Asia/Yekaterinburg",
    "Novosibirsk": "Asia/Novosibirsk",
    "Vladivostok": "Asia/Vladivostok",
    "London": "Europe/London",
    "Berlin": "Europe/Berlin",
    "New York": "America/New_York",
    "São Paulo": "America/Sao_Paulo",
    "St. John's": "America/St_Johns",
    "Honolulu": "Pacific/Honolulu",
    "Mumbai": "Asia/Kolkata",
    "Kathmandu": "Asia/Kathmandu",
    "Lord Howe Island": "Australia/Lord_Howe",
    "Auckland": "Pacific/Auckland",
}
OPERATOR_CODES = tuple(f"{code:03}" for code in range(10, 35))
TAGS = {"news": 30, "vip": 10, "promo": 25, "winback": 20, "staff": 5, "": 10}
ANY_HOUR = ("news", "vip")
WHOLE_DAYS = (("", ""), ("", ""), ("00:00", "00:00"), ("06:30", "06:30"))
# The day on which summer time ends has 25 hours, of which a window of 24 hours leaves one out.
SUMMER_TIME = (
    "Europe/London",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
)
WINDOWS = (
    ("", ""),
    ("09:00", "21:00"),
    ("10:00", "18:00"),
    ("08:30", "12:15"),
    ("19:00", "23:59:59"),
    ("22:00", "06:00"),
    ("20:00", "02:00"),
    ("12:00", "12:30"),
)
NAMES = (
    "Anna",
    "Ivan",
    "Ольга",
    "Zoë",
    "José",
    "Priya",
    "Wei",
    "Noah",
    "Aroha",
    'Anne "Annie" Lee',
    "Park, Min-jun",
    "",
)


def rows(count: int = COUNT) -> Iterator[tuple[str, ...]]:
    """Yield the clients in the order of `HEADER`."""
    # Only random() is used: its sequence is the one that Python promises to keep.
    numbers = random.Random(SEED)  # noqa: S311 - invented people need no secrecy

    def pick(choices: tuple[str, ...]) -> str:
        return choices[int(numbers.random() * len(choices))]

    cities = tuple(CITIES)
    tags = tuple(tag for tag, share in TAGS.items() for _ in range(share))
    for number in range(count):
        code, tag, city, name = pick(OPERATOR_CODES), pick(tags), pick(cities), pick(NAMES)
        zone = CITIES[city]
        windows = WINDOWS if tag not in ANY_HOUR else WHOLE_DAYS[:1] if zone in SUMMER_TIME else WHOLE_DAYS
        start, end = windows[int(numbers.random() * len(windows))]
        known_city = city if numbers.random() < 0.7 else ""
        yield f"7{code}{number:07}", code, tag, zone, start, end, name, known_city


def write(out: TextIO) -> None:
    """Write the whole file."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows())


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
    write(sys.stdout)
