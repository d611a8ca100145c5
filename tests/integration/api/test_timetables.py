"""Sending hours, holidays, local starts and lateness of mailings, as callers set, read and preview them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration

from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.day_of_week_pb2 import DayOfWeek
from mailing.v1.mailing_pb2 import Mailing, SendingHours
from mailing.v1.time_of_day_pb2 import TimeOfDay
from tests.integration.api.calls import add_client, refused, window
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import State, at, create, get, update
from tests.integration.api.preview_calls import MIDNIGHT, add_clients, exclusions, hours, preview, preview_stored, stamp

MONDAY, SATURDAY = DayOfWeek.DAY_OF_WEEK_MONDAY, DayOfWeek.DAY_OF_WEEK_SATURDAY
NEVER = CivilDateTime(year=2090, month=6, day=1, hours=10)


def sending(start: int = 9, length: float = 3600, *weekdays: DayOfWeek.ValueType, zone: str = "") -> SendingHours:
    span = Duration()
    span.FromTimedelta(timedelta(seconds=length))
    return SendingHours(weekdays=weekdays, start=TimeOfDay(hours=start), duration=span, timezone=zone)


def civil(local: datetime) -> CivilDateTime:
    return CivilDateTime(
        year=local.year, month=local.month, day=local.day, hours=local.hour, minutes=local.minute, seconds=local.second
    )


async def add_calendar(pool: asyncpg.Pool, name: str, *days: date) -> None:
    await pool.execute("INSERT INTO calendars (name, days) VALUES ($1, $2)", name, days)


async def test_a_timetable_comes_back_as_it_was_created(service: Service, pool: asyncpg.Pool) -> None:
    await add_calendar(pool, "germany")
    asked: dict[str, Any] = {
        "sending_hours": [sending(9, 32400, MONDAY, SATURDAY), sending(20, 3600, zone="Europe/Berlin")],
        "holidays": "germany",
        "local_start": CivilDateTime(year=2090, month=2, day=28, hours=23, minutes=59, seconds=1),
        "skip_after": Duration(seconds=7200),
    }
    made = await create(service, **asked)
    for name, value in asked.items():
        found = getattr(made, name)
        assert (list(found) if isinstance(value, list) else found) == value, name
    assert made.state == State.STATE_SCHEDULED
    assert not made.HasField("start_time")
    assert not made.HasField("begin_time")
    assert await get(service, made.id) == made


async def test_the_begin_of_a_mailing_with_a_start_is_its_start(service: Service) -> None:
    made = await create(service, start_time=at(3600))
    assert made.begin_time == made.start_time


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"sending_hours": [SendingHours(duration=Duration(seconds=1))]}, "sending_hours[0].start"),
        ({"sending_hours": [SendingHours(start=TimeOfDay(hours=9))]}, "sending_hours[0].duration"),
        ({"sending_hours": [sending(24)]}, "sending_hours[0].start"),
        ({"sending_hours": [sending(9, 0)]}, "sending_hours[0].duration"),
        ({"sending_hours": [sending(9, 86401)]}, "sending_hours[0].duration"),
        ({"sending_hours": [sending(9, 1.5)]}, "sending_hours[0].duration"),
        ({"sending_hours": [sending(9, 1, DayOfWeek.ValueType(0))]}, "sending_hours[0].weekdays[0]"),
        ({"sending_hours": [sending(9, 1, DayOfWeek.ValueType(8))]}, "sending_hours[0].weekdays[0]"),
        ({"sending_hours": [sending(zone="Mars/Olympus")]}, "sending_hours[0].timezone"),
        ({"sending_hours": [sending(9, 7200), sending(10, 3600, MONDAY)]}, "sending_hours[1]"),
        ({"sending_hours": [sending(22, 4 * 3600, DayOfWeek.ValueType(7)), sending(1, 1, MONDAY)]}, "sending_hours[1]"),
        ({"sending_hours": [sending()] * 51}, "sending_hours"),
        ({"local_start": CivilDateTime(year=2026, month=2, day=30)}, "local_start"),
        ({"local_start": CivilDateTime(year=1999, month=2, day=3)}, "local_start.year"),
        ({"local_start": NEVER, "start_time": at(60)}, "local_start"),
        ({"local_start": NEVER, "end_time": at(60)}, "end_time"),
        ({"skip_after": Duration(seconds=59)}, "skip_after"),
        ({"skip_after": Duration(seconds=367 * 86400)}, "skip_after"),
    ],
)
async def test_a_timetable_that_cannot_be_is_refused(service: Service, fields: dict[str, Any], path: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"mailing.{path}"):
        await create(service, **fields)


async def test_hours_of_unlike_zones_or_that_only_touch_do_not_overlap(service: Service) -> None:
    hours = [sending(9), sending(10), sending(9, zone="UTC"), sending(23, 10 * 3600)]
    assert list((await create(service, sending_hours=hours)).sending_hours) == hours


async def test_an_unknown_calendar_is_not_found(service: Service, pool: asyncpg.Pool) -> None:
    await add_calendar(pool, "germany")
    with refused("NOT_FOUND", "CALENDAR_NOT_FOUND") as info:
        await create(service, holidays="france")
    assert dict(info.metadata) == {"calendar": "france", "field": "mailing.holidays", "known": "germany"}
    with refused("NOT_FOUND", "CALENDAR_NOT_FOUND"):
        await preview(service, holidays="france")
    made = await create(service)
    with refused("NOT_FOUND", "CALENDAR_NOT_FOUND"):
        await update(service, Mailing(id=made.id, holidays="france"))


async def test_one_start_replaces_the_other(service: Service) -> None:
    made = await create(service, start_time=at(3600))
    local = await update(service, Mailing(id=made.id, local_start=NEVER))
    assert (local.local_start, local.HasField("start_time"), local.state) == (NEVER, False, State.STATE_SCHEDULED)
    again = await update(service, Mailing(id=made.id, start_time=at(7200)))
    assert (again.HasField("local_start"), again.begin_time) == (False, again.start_time)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.local_start"):
        await update(service, Mailing(id=made.id, start_time=at(7200), local_start=NEVER))


async def test_an_update_of_something_else_keeps_the_timetable(service: Service) -> None:
    made = await create(service, local_start=NEVER, sending_hours=[sending()], skip_after=Duration(seconds=60))
    changed = await update(service, Mailing(id=made.id, title="new"))
    assert (changed.local_start, changed.sending_hours) == (made.local_start, made.sending_hours)
    cleared = await update(service, Mailing(id=made.id), "sending_hours", "skip_after")
    assert (len(cleared.sending_hours), cleared.HasField("skip_after"), cleared.local_start) == (0, False, NEVER)


class TestPreview:
    """MIDNIGHT is one of UTC, and the start of these mailings."""

    async def test_hours_postpone_samples_and_finish(self, service: Service) -> None:
        await add_clients(service, 2)
        await add_clients(service, 1, 79261000000, receive_window=window(8, 4 * 3600))
        answer = await preview(service, sending_hours=[sending(10, 7200)], start_time=hours(0))
        assert {sample.due_time.seconds for sample in answer.samples} == {hours(10).seconds}
        assert (answer.audience_size, answer.estimated_finish_time) == (3, hours(10))

    async def test_who_is_left_out_by_the_timetable_has_its_reason(self, service: Service) -> None:
        await add_clients(service, 1, receive_window=window(13))
        await add_clients(service, 2, 79261000000, receive_window=window(8, 1800))
        await add_clients(service, 4, 79262000000)
        answer = await preview(service, sending_hours=[sending(9)], start_time=hours(0), end_time=hours(12))
        assert exclusions(answer) == {"WINDOW_NOT_BEFORE_END": 1, "HOURS_NOT_BEFORE_END": 2}
        assert answer.audience_size == 4

    async def test_zones_that_are_past_a_local_start_are_too_late(self, service: Service) -> None:
        local = datetime.now().astimezone().replace(microsecond=0)  # any moment
        utc = local.astimezone(MIDNIGHT.tzinfo).replace(tzinfo=None)
        await add_clients(service, 1, timezone="Etc/GMT-5")
        await add_clients(service, 2, 79261000000, timezone="Etc/GMT+5")
        start = civil(utc)
        assert (await preview(service, local_start=start)).audience_size == 3
        answer = await preview(service, local_start=start, skip_after=Duration(seconds=3600))
        assert (answer.audience_size, exclusions(answer)) == (2, {"TOO_LATE": 1})
        assert {sample.due_time.seconds for sample in answer.samples} == {stamp(local + timedelta(hours=5)).seconds}

    async def test_a_rate_sends_only_what_is_not_too_late(self, service: Service) -> None:
        await add_clients(service, 5)
        slow: dict[str, Any] = {"start_time": hours(0), "max_rate": 0.01}
        assert (await preview(service, **slow)).sendable_before_end == 5
        assert (await preview(service, **slow, skip_after=Duration(seconds=250))).sendable_before_end == 3

    async def test_a_rate_is_spent_inside_the_hours(self, service: Service) -> None:
        await add_clients(service, 3)
        answer = await preview(service, start_time=hours(0), max_rate=1 / 3600, sending_hours=[sending(9, 5400)])
        assert answer.estimated_finish_time == hours(24 + 9)

    async def test_a_holiday_of_the_calendar_is_passed_over(self, service: Service, pool: asyncpg.Pool) -> None:
        await add_calendar(pool, "here", MIDNIGHT.date())
        await add_client(service, timezone="UTC")
        made = await create(service, start_time=hours(0), holidays="here")
        assert (await preview_stored(service, made.id)).estimated_finish_time == hours(24)

    async def test_clients_without_a_window_have_the_one_of_the_service(
        self, service: Service, pool: asyncpg.Pool
    ) -> None:
        await pool.execute("UPDATE dispatch_settings SET default_window_start = '09:00', default_window_length = '1 h'")
        await add_clients(service, 2)
        answer = await preview(service, start_time=hours(0))
        assert answer.estimated_finish_time == hours(9)
        assert {sample.due_time.seconds for sample in answer.samples} == {hours(9).seconds}
