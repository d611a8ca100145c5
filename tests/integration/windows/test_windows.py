"""The window functions of the database against an oracle that knows nothing of them.

How these were seen to fail: with the window functions of the first migration, 157 of 155,470
cases around changes of the clock contradict the oracle in seven zones, all of them with changes
around midnight, such as Nuuk, where the last hour of a day is skipped; in a session in Berlin so
do 270, because a window of 24 hours reaches Postgres as one day, which has 23 or 25 hours there.
With CET, EET, MET and WET accepted, which Postgres takes for abbreviations, the comparison of the
two zone databases fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from server.domain.clients import known_zones
from tests.integration.windows.oracle import DAY, changes, is_inside, next_window
from tests.integration.windows.zones import CHANGING, YEARS, disagreeing

LENGTHS = [timedelta(minutes=20), timedelta(hours=1), timedelta(hours=9), timedelta(hours=23, minutes=40), DAY]


class Case(NamedTuple):
    zone: str
    start: time
    length: timedelta
    moment: datetime


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def zones(database: asyncpg.Connection) -> list[str]:
    """Every zone that a client may have, in their order."""
    return sorted(known_zones(row["name"] for row in await database.fetch("SELECT name FROM pg_timezone_names")))


async def contradictions(database: asyncpg.Connection, cases: list[Case]) -> list[str]:
    """Return every case in which the database and the oracle do not agree."""
    rows = await database.fetch(
        "SELECT window_opens_at(zone, start, length, moment) AS opens_at,"
        " window_closes_at(zone, start, length, moment) AS closes_at"
        " FROM unnest($1::text[], $2::time[], $3::interval[], $4::timestamptz[]) AS u (zone, start, length, moment)",
        *(list(column) for column in zip(*cases, strict=True)),
    )
    found = []
    for case, (opens_at, closes_at) in zip(cases, rows, strict=True):
        expected = next_window(*case)
        if (opens_at, closes_at) != expected:
            found.append(f"{case}: {opens_at} to {closes_at}, should be {expected}")
        elif not is_inside(*case[:3], opens_at, closes_at):
            found.append(f"{case}: {opens_at} to {closes_at} is not inside a window throughout")
    return found


def around(zone: str, change: datetime, random: Random) -> list[Case]:
    """Windows that begin and end in, at and beside the hour that is skipped or doubled."""
    place = ZoneInfo(zone)
    before = (change - timedelta(seconds=1)).astimezone(place).replace(tzinfo=None) + timedelta(seconds=1)
    after = change.astimezone(place).replace(tzinfo=None)
    low, high = min(before, after), max(before, after)
    starts = {low, high, low + (high - low) / 2, low - timedelta(seconds=1), high - timedelta(seconds=1)}
    starts |= {low - timedelta(minutes=20), high + timedelta(hours=5), low.replace(hour=0, minute=0, second=0)}
    cases = []
    for start in sorted(starts):
        for length in LENGTHS:
            moments = [change + timedelta(seconds=s) for s in (-1, 0, 1)]
            moments += [change + timedelta(minutes=random.randint(-40, 40) * 5) for _ in range(4)]
            moments += [change + timedelta(seconds=random.randint(-2 * 86400, 2 * 86400)) for _ in range(3)]
            # The edges themselves: the window that is next two days before opens, and closes.
            edge = next_window(zone, start.time(), length, change - random.choice([DAY, DAY / 2, DAY * 0]))
            moments += [moment + timedelta(seconds=s) for moment in edge for s in (-1, 0)]
            cases += [Case(zone, start.time(), length, moment) for moment in moments]
    return cases


async def test_the_zone_databases_agree_on_nearly_everything(database: asyncpg.Connection, zones: list[str]) -> None:
    """Also fails when Postgres takes a name for something else than the zone of that name."""
    assert len(zones) > 400
    random = Random(20260101)
    differing = await disagreeing(database, {*random.sample(zones, 60), *CHANGING, *(z for z in zones if "/" not in z)})
    assert len(differing) <= 20, sorted(differing)


async def test_every_change_of_the_clock_for_five_years(database: asyncpg.Connection) -> None:
    differing = await disagreeing(database, CHANGING)
    moments = [
        (zone, change)
        for zone in CHANGING
        for year in YEARS
        if (zone, year) not in differing
        for change in changes(zone, year)
    ]
    assert len(differing) <= len(CHANGING)
    assert len({zone for zone, _ in moments}) >= 20
    assert len(moments) >= 200
    random = Random(2)
    cases = [case for zone, change in moments for case in around(zone, change, random)]
    assert await contradictions(database, cases) == []


async def test_random_zones_dates_and_windows(database: asyncpg.Connection, zones: list[str]) -> None:
    random = Random(3)
    chosen = random.sample(zones, 150)
    differing = await disagreeing(database, chosen)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    cases = [
        Case(
            random.choice(chosen),
            time(random.randrange(24), random.randrange(60), random.choice([0, 0, 0, 1, 59])),
            timedelta(seconds=random.choice([random.randint(1, 86400), random.randint(1, 96) * 900])),
            begin + timedelta(seconds=random.randrange(5 * 365 * 86400)),
        )
        for _ in range(10_000)
    ]
    compared = [case for case in cases if (case.zone, case.moment.year) not in differing]
    assert len(compared) > 0.95 * len(cases)
    assert await contradictions(database, compared) == []


@pytest.mark.parametrize("session", ["Europe/Berlin", "America/Los_Angeles", "Antarctica/Troll"])
async def test_the_zone_of_the_session_does_not_matter(database: asyncpg.Connection, session: str) -> None:
    await database.execute(f"SET TimeZone = '{session}'")
    random = Random(4)
    here = [case for change in changes(session, 2027) for case in around(session, change, random)]
    elsewhere = [case._replace(zone="Asia/Tokyo") for case in here]
    assert await contradictions(database, here + elsewhere) == []


async def test_without_a_window_it_is_always_open(database: asyncpg.Connection) -> None:
    now = datetime(2026, 3, 29, 1, tzinfo=UTC)
    opens_at, closes_at = await database.fetchrow(
        "SELECT window_opens_at('Europe/Berlin', NULL, NULL, $1),"
        " window_closes_at('Europe/Berlin', NULL, NULL, $1) = 'infinity'",
        now,
    )
    assert (opens_at, closes_at) == (now, True)


async def test_the_functions_become_part_of_the_query(database: asyncpg.Connection) -> None:
    """Fails when they are declared IMMUTABLE: Postgres then calls them row by row, five times slower."""
    for function in ("window_opens_at", "window_closes_at"):
        plan = await database.fetch(
            f"EXPLAIN (VERBOSE, COSTS OFF) SELECT {function}(timezone, window_start, window_length, now()) FROM clients"
        )
        assert not any(function in line["QUERY PLAN"] for line in plan), plan
