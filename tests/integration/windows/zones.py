"""The zones and years in which windows and timetables are compared, and where the two zone databases disagree."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from tests.integration.windows.oracle import DAY, changes

YEARS = range(2026, 2031)

CHANGING = [
    "Africa/Cairo",  # at midnight, in both directions
    "Africa/Casablanca",  # back for Ramadan, by the moon
    "Africa/El_Aaiun",
    "America/Asuncion",
    "America/Havana",  # at midnight, standard time
    "America/Los_Angeles",
    "America/Miquelon",
    "America/New_York",
    "America/Nuuk",  # the last hour of Saturday is the one that is skipped
    "America/Santiago",  # at midnight, and in the southern summer
    "America/Scoresbysund",
    "America/St_Johns",  # half an hour beside the others
    "Antarctica/Troll",  # two hours
    "Asia/Beirut",  # at midnight
    "Asia/Gaza",
    "Asia/Jerusalem",
    "Atlantic/Azores",  # the doubled hour is the first of its day
    "Australia/Adelaide",
    "Australia/Lord_Howe",  # half an hour
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Chisinau",
    "Europe/Dublin",  # summer is standard time there
    "Europe/Lisbon",
    "Europe/London",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Easter",
    "Pacific/Norfolk",
]


async def disagreeing(database: asyncpg.Connection, zones: Iterable[str]) -> set[tuple[str, int]]:
    """Return the zones and years that the two zone databases tell differently.

    They come from different releases, and governments decide at short notice.
    """
    moments = [
        (zone, moment)
        for zone in zones
        for year in YEARS
        for moment in (
            *(datetime(year, 1, 1, 12, tzinfo=UTC) + 3 * n * DAY for n in range(122)),
            *(change + timedelta(seconds=s) for change in changes(zone, year) for s in (-1, 0)),
        )
    ]
    rows = await database.fetch(
        "SELECT moment AT TIME ZONE zone AS local FROM unnest($1::text[], $2::timestamptz[]) AS u (zone, moment)",
        [zone for zone, _ in moments],
        [moment for _, moment in moments],
    )
    return {
        (zone, moment.year)
        for (zone, moment), row in zip(moments, rows, strict=True)
        if moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) != row["local"]
    }
