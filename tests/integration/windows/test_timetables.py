"""Sending hours x windows x holidays x local starts in the database, against an oracle that knows nothing of it.

How these were seen to fail: with weekdays taken from the day on which a moment lies instead of the day on
which the hours opened; with holidays from the second midnight on where the clock shows two; with a local start
as Postgres reads it, an hour late where the clock skips or repeats it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from server.domain.timetables import SendingHours
from tests.integration.windows.oracle import DAY, Window, changes
from tests.integration.windows.timetable_oracle import LOOKED_AHEAD, NEVER, Timetable
from tests.integration.windows.zones import CHANGING, YEARS, disagreeing

EXAMPLES = 4
"""Timetables for each change of the clock."""

EACH = 25
"""Changes of the clock in one question."""

with_examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)

NONE, WINDOW, TOO_LATE, HOURS = 0, 5, 16, 18

_QUARTERS = st.integers(0, 95).map(lambda n: time(n // 4, n % 4 * 15))
_LENGTHS = st.sampled_from([1200, 3600, 5400, 8 * 3600, 23 * 3600 + 1800, 86400]).map(lambda s: timedelta(seconds=s))
_WEEKDAYS = st.lists(st.integers(1, 7), max_size=4, unique=True).map(lambda days: tuple(sorted(days)))


class Case(NamedTuple):
    """A timetable, the moment from which a message may leave, and the end and lateness of its mailing."""

    timetable: Timetable
    moment: datetime
    ends_at: datetime | None
    skip_after: timedelta | None
    due_since: datetime


@st.composite
def _cases(draw: st.DrawFn, around: Sequence[tuple[str, datetime]]) -> Case:
    """Draw a case within a few days of a change of the clock, with times at and beside what it skips or doubles."""
    zone, change = draw(st.sampled_from(around))
    shown = [
        (change + timedelta(seconds=s)).astimezone(ZoneInfo(zone)).replace(tzinfo=None, microsecond=0) for s in (-1, 0)
    ]
    beside = [local + timedelta(minutes=m) for local in shown for m in (-20, 0, 20)] + [shown[0] + timedelta(seconds=1)]
    times = st.one_of(_QUARTERS, st.sampled_from([local.time() for local in beside]))
    window = draw(st.one_of(st.none(), st.tuples(times, _LENGTHS)))
    zones = st.sampled_from(["", "", zone, "UTC", "Europe/Berlin", "America/Santiago"])
    hours = draw(st.lists(st.builds(SendingHours, _WEEKDAYS, times, _LENGTHS, zones), max_size=3))
    days = st.integers(-2, 3).map(lambda n: change.date() + n * DAY)
    local_starts = st.one_of(
        st.sampled_from(beside), st.builds(datetime.combine, days, st.builds(time, st.integers(0, 23), st.just(30)))
    )
    moment = change + timedelta(seconds=draw(st.sampled_from([-90000, -3600, -1, 0, 1, 1800, 40000, -200_000])))
    return Case(
        Timetable(
            zone,
            window,
            tuple(hours),
            frozenset(draw(st.lists(days, max_size=2))),
            draw(st.one_of(st.none(), local_starts)),
        ),
        moment,
        draw(st.one_of(st.none(), st.integers(1, 200).map(lambda h: moment + timedelta(hours=h)))),
        draw(st.one_of(st.none(), st.sampled_from([timedelta(minutes=1), timedelta(hours=2), DAY]))),
        moment - timedelta(minutes=draw(st.sampled_from([0, 5, 90, 1500]))),
    )


def _expected(case: Case) -> tuple[Window, int]:
    """Return when the message may leave, until when, and the reason why it cannot; the times count without one."""
    timetable, moment = case.timetable, case.moment
    starts_at = timetable.starts_at() if timetable.local_start else None
    opens_at, closes_at = timetable.next_opening(max(moment, starts_at or moment))
    late_at = NEVER
    if case.skip_after is not None:
        due_at = timetable.next_opening(starts_at or case.due_since).opens_at
        late_at = NEVER if due_at == NEVER else due_at + case.skip_after
    ends_at = case.ends_at or NEVER
    if opens_at < min(ends_at, late_at):
        return Window(opens_at, min(closes_at, late_at)), NONE
    if opens_at < ends_at:
        return Window(opens_at, closes_at), TOO_LATE
    alone = timetable._replace(hours=(), holidays=frozenset(), local_start=None).next_opening(moment).opens_at
    return Window(opens_at, closes_at), WINDOW if timetable.window and alone >= ends_at else HOURS


async def _answers(connection: asyncpg.Connection, cases: Sequence[Case]) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT d.* FROM unnest($1::text[], $2::time[], $3::interval[], $4::jsonb[], $5::text[], $6::timestamp[],"
        " $7::interval[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[])"
        " AS u (zone, start, length, hours, holidays, local_start, skip_after, ends_at, due_since, moment)"
        " CROSS JOIN LATERAL next_departure_v1(zone, start, length, hours, holidays::date[], local_start, skip_after,"
        " coalesce(ends_at, 'infinity'), due_since, moment) d",
        *zip(*map(_row, cases), strict=True),
    )
    return rows


def _row(case: Case) -> tuple[object, ...]:
    timetable = case.timetable
    start, length = timetable.window or (None, None)
    hours = orjson.dumps([one.as_json() for one in timetable.hours]).decode()
    holidays = f"{{{','.join(day.isoformat() for day in timetable.holidays)}}}"
    about = (timetable.zone, start, length, hours, holidays, timetable.local_start)
    return (*about, case.skip_after, case.ends_at, case.due_since, case.moment)


def _contradicts(case: Case, row: asyncpg.Record) -> str:
    (opens_at, closes_at), reason = _expected(case)
    last = case.moment + LOOKED_AHEAD - 2 * DAY
    far = opens_at > last  # beyond what the oracle looks at for certain
    if reason != row["reason"] and not (far and row["reason"] in (NONE, TOO_LATE, HOURS)):
        return f"{case}: {row}, should be {reason}"
    if reason != NONE or far:
        return ""
    seen = min(row["closes_at"].replace(tzinfo=UTC), last + 10 * DAY)
    ended = closes_at == row["closes_at"] or (closes_at > last - 4 * DAY and seen > last - 4 * DAY)
    return "" if opens_at == row["opens_at"] and ended else f"{case}: {row}, should be {opens_at} to {closes_at}"


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_dsn)
    yield connection
    await connection.close()


async def _changes(connection: asyncpg.Connection) -> list[tuple[str, datetime]]:
    differing = await disagreeing(connection, CHANGING)
    return [
        (zone, change)
        for zone in CHANGING
        for year in YEARS
        if (zone, year) not in differing
        for change in changes(zone, year)
    ]


async def test_a_holiday_lasts_as_long_as_the_clock_shows_its_date(database: asyncpg.Connection) -> None:
    cases = [
        Case(Timetable(zone, None, (), frozenset({shown}), None), moment, None, None, moment)
        for zone, change in await _changes(database)
        for shown in {(change + timedelta(seconds=s)).astimezone(ZoneInfo(zone)).date() for s in (-1, 0)}
        for moment in [change + timedelta(seconds=s) for s in (-90_000, -3600, -1, 0, 1, 3600)]
    ]
    rows = await _answers(database, cases)
    assert len(cases) > 1000
    assert [found for case, row in zip(cases, rows, strict=True) if (found := _contradicts(case, row))] == []


def test_timetables_agree_with_the_oracle_at_every_change_of_the_clock(database_dsn: str) -> None:
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database_dsn))
        around = runner.run(_changes(connection))
        assert len(around) >= 200

        def agree(cases: tuple[Case, ...]) -> None:
            rows = runner.run(_answers(connection, cases))
            assert [found for case, row in zip(cases, rows, strict=True) if (found := _contradicts(case, row))] == []

        for first in range(0, len(around), EACH):
            some = st.tuples(*(_cases([one]) for one in around[first : first + EACH]))
            with_examples(given(some)(agree))()
        runner.run(connection.close())
