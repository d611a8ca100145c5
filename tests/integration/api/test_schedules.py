"""Schedules through the API, and the mailings that come of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from dispatcher.model.states import MailingState
from mailing.v1 import client_pb2, mailing_pb2, schedule_pb2
from mailing.v1 import schedule_service_pb2 as pb
from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.mailing_service_pb2 import CancelMailingRequest, ListMailingsRequest
from mailing.v1.time_of_day_pb2 import TimeOfDay
from server.api.encoding.schedules import TEMPLATES
from server.schedules import MailingMaker
from server.storage.database import Database
from server.storage.schedules import ScheduleQueue
from tests.integration.api.calls import mailing, refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import at, get, move_to

YEARLY = "0 0 1 1 *"
"""Comes due in no test by itself."""

Overlap = schedule_pb2.Schedule.Overlap
Schedule = schedule_pb2.Schedule


def schedule(text: str = "Hello", **fields: Any) -> Schedule:
    whenever = {} if {"cron", "rrule"} & fields.keys() else {"cron": "0 10 * * 1-5"}
    defaults: dict[str, Any] = {"mailing": mailing(text), "timezone": "Europe/Berlin"}
    return Schedule(**defaults | whenever | fields)


async def create(service: Service, **fields: Any) -> Schedule:
    return (await service.schedules.CreateSchedule(pb.CreateScheduleRequest(schedule=schedule(**fields)))).schedule


async def read(service: Service, schedule_id: int) -> Schedule:
    return (await service.schedules.GetSchedule(pb.GetScheduleRequest(schedule_id=schedule_id))).schedule


async def update(service: Service, changed: Schedule, *paths: str, validate_only: bool = False) -> Schedule:
    request = pb.UpdateScheduleRequest(
        schedule=changed, update_mask=FieldMask(paths=paths), validate_only=validate_only
    )
    return (await service.schedules.UpdateSchedule(request)).schedule


async def made_by(service: Service, schedule_id: int) -> Sequence[mailing_pb2.Mailing]:
    return (await service.mailings.ListMailings(ListMailingsRequest(schedule_id=schedule_id))).mailings


async def due(pool: asyncpg.Pool, schedule_id: int, ago: str = "1 second") -> None:
    """Let the next occurrence be in the past."""
    await pool.execute(
        f"UPDATE schedules SET next_at = date_trunc('second', now()) - interval '{ago}' WHERE id = $1", schedule_id
    )


def maker(pool: asyncpg.Pool) -> MailingMaker:
    return MailingMaker(ScheduleQueue(Database(pool), TEMPLATES))


async def events_of(pool: asyncpg.Pool) -> list[str]:
    rows = await pool.fetch("SELECT event FROM log WHERE event LIKE 'schedule.%' ORDER BY no")
    return [row["event"] for row in rows]


async def test_a_schedule_is_returned_as_it_was_sent(service: Service) -> None:
    sent = schedule(
        title="Mornings",
        mailing=mailing("Hi {tag}", filter=client_pb2.ClientFilter(tags=["vip"]), priority=3, labels={"a": "b"}),
        rrule="DTSTART:20261201T100000\nRRULE:FREQ=MONTHLY;BYDAY=1MO",
        end_after=Duration(seconds=3600),
        overlap=Overlap.OVERLAP_WAIT,
        catch_up=Duration(seconds=0),
    )
    made = (await service.schedules.CreateSchedule(pb.CreateScheduleRequest(schedule=sent))).schedule
    assert made.id > 0
    assert (made.title, made.rrule, made.cron, made.overlap) == ("Mornings", sent.rrule, "", Overlap.OVERLAP_WAIT)
    assert (made.end_after, made.catch_up, made.timezone) == (sent.end_after, sent.catch_up, "Europe/Berlin")
    assert (made.mailing.text, list(made.mailing.filter.tags), made.mailing.priority) == ("Hi {tag}", ["vip"], 3)
    assert len(made.next_times) == 5
    assert not made.paused
    assert not made.last_mailing_id
    assert made == await read(service, made.id)


async def test_what_is_left_out_has_the_defaults_of_the_contract(service: Service) -> None:
    made = await create(service)
    assert (made.overlap, made.catch_up.seconds, made.HasField("end_after")) == (Overlap.OVERLAP_SKIP, 3600, False)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"cron": ""}, "schedule.cron"),
        ({"cron": "0 10 * *"}, "schedule.cron"),
        ({"cron": "0 0 30 2 *"}, "schedule.cron"),
        ({"rrule": "FREQ=DAILY"}, "schedule.rrule"),
        ({"rrule": "DTSTART:20200101T100000\nRRULE:FREQ=DAILY;COUNT=3"}, "schedule.rrule"),
        ({"timezone": "Mars/Olympus"}, "schedule.timezone"),
        ({"timezone": ""}, "schedule.timezone"),
        ({"title": "x" * 201}, "schedule.title"),
        ({"mailing": mailing("")}, "schedule.mailing.text"),
        ({"mailing": mailing("{nonsense}")}, "schedule.mailing.text"),
        ({"mailing": mailing(priority=2000)}, "schedule.mailing.priority"),
        ({"mailing": mailing(start_time=at(60))}, "schedule.mailing.start_time"),
        ({"mailing": mailing(end_time=at(60))}, "schedule.mailing.end_time"),
        ({"mailing": mailing(local_start=CivilDateTime(year=2030, month=1, day=1))}, "schedule.mailing.local_start"),
        ({"mailing": mailing(skip_after=Duration(seconds=1))}, "schedule.mailing.skip_after"),
        ({"end_after": Duration(seconds=59)}, "schedule.end_after"),
        ({"catch_up": Duration(seconds=-1)}, "schedule.catch_up"),
        ({"overlap": 9}, "schedule.overlap"),
    ],
)
async def test_a_bad_schedule_is_refused_by_field(
    service: Service, pool: asyncpg.Pool, fields: dict[str, Any], path: str
) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", path):
        await create(service, **fields)
    assert not await pool.fetchval("SELECT count(*) FROM schedules")


async def test_a_template_names_configured_endpoints_only(service: Service) -> None:
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND"):
        await create(service, mailing=mailing(endpoint="fax"))
    made = await create(service)
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND"):
        await update(service, Schedule(id=made.id, mailing=mailing(endpoint="fax")), "mailing.endpoint")


async def test_a_template_names_a_calendar_that_there_is(service: Service, pool: asyncpg.Pool) -> None:
    await pool.execute("INSERT INTO calendars (name, days) VALUES ('germany', '{}')")
    unknown = mailing(holidays="france")
    with refused("NOT_FOUND", "CALENDAR_NOT_FOUND") as info:
        await create(service, mailing=unknown)
    assert dict(info.metadata) == {"calendar": "france", "field": "schedule.mailing.holidays", "known": "germany"}
    made = await create(service, mailing=mailing(holidays="germany"))
    for paths in ((), ("mailing",), ("mailing.holidays",)):
        with refused("NOT_FOUND", "CALENDAR_NOT_FOUND") as info:
            await update(service, Schedule(id=made.id, mailing=unknown), *paths)
        assert info.metadata["field"] == "schedule.mailing.holidays"
    assert await read(service, made.id) == made
    assert not (await update(service, Schedule(id=made.id), "mailing.holidays")).mailing.holidays


async def test_a_template_keeps_hours_and_limits_of_lateness(service: Service, pool: asyncpg.Pool) -> None:
    hours = mailing_pb2.SendingHours(start=TimeOfDay(hours=9), duration=Duration(seconds=3600), timezone="Asia/Tokyo")
    made = await create(service, mailing=mailing(sending_hours=[hours], skip_after=Duration(seconds=600)))
    await due(pool, made.id)
    await maker(pool).poll()
    [sent] = await made_by(service, made.id)
    for one in (made.mailing, sent):
        assert (list(one.sending_hours), one.skip_after.seconds) == ([hours], 600)


async def test_checking_alone_shows_the_next_times_and_adds_nothing(service: Service, pool: asyncpg.Pool) -> None:
    request = pb.CreateScheduleRequest(schedule=schedule(), validate_only=True)
    checked = (await service.schedules.CreateSchedule(request)).schedule
    assert (checked.id, len(checked.next_times)) == (0, 5)
    assert not await pool.fetchval("SELECT count(*) FROM schedules")
    made = await create(service)
    changed = Schedule(id=made.id, cron="0 11 * * *")
    assert (await update(service, changed, validate_only=True)).cron == "0 11 * * *"
    assert await read(service, made.id) == made
    assert await events_of(pool) == ["schedule.created"]


async def test_a_repeated_creation_returns_the_first_schedule(service: Service) -> None:
    request = pb.CreateScheduleRequest(schedule=schedule(), request_id=str(uuid4()))
    answers = await asyncio.gather(*(service.schedules.CreateSchedule(request) for _ in range(4)))
    assert len({answer.schedule.id for answer in answers}) == 1
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        other = pb.CreateScheduleRequest(schedule=schedule("Other"), request_id=request.request_id)
        await service.schedules.CreateSchedule(other)


async def test_an_update_changes_what_its_mask_names(service: Service) -> None:
    made = await create(service, title="One", mailing=mailing("Hi", priority=5))
    changed = await update(service, Schedule(id=made.id, mailing=mailing("Ho")), "mailing.text")
    assert (changed.mailing.text, changed.mailing.priority, changed.title) == ("Ho", 5, "One")
    rule = "DTSTART:20261201T100000\nRRULE:FREQ=DAILY"
    changed = await update(service, Schedule(id=made.id, rrule=rule))
    assert (changed.rrule, changed.cron) == (rule, "")
    assert changed.next_times != made.next_times
    assert await update(service, Schedule(id=made.id), "mailing.progress", "next_times") != made
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"):
        await update(service, Schedule(id=made.id), "mailing.nonsense")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "schedule.timezone"):
        await update(service, Schedule(id=made.id), "timezone")
    with refused("ABORTED", "STALE_ETAG"):
        await update(service, Schedule(id=made.id, etag=made.etag, title="Two"))


async def test_schedules_are_listed_newest_first_by_page(service: Service) -> None:
    ids = [(await create(service)).id for _ in range(3)]
    first = await service.schedules.ListSchedules(pb.ListSchedulesRequest(page_size=2))
    rest = await service.schedules.ListSchedules(pb.ListSchedulesRequest(page_token=first.next_page_token))
    assert [one.id for one in [*first.schedules, *rest.schedules]] == ids[::-1]
    assert not rest.next_page_token
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"):
        await service.schedules.ListSchedules(pb.ListSchedulesRequest(page_token="nonsense"))


async def test_an_occurrence_makes_its_mailing(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, title="Daily", end_after=Duration(seconds=7200), cron=YEARLY)
    await due(pool, made.id)
    wait = await maker(pool).poll()
    assert wait == 0.0
    [sent] = await made_by(service, made.id)
    assert (sent.schedule_id, sent.text, sent.state) == (made.id, "Hello", mailing_pb2.Mailing.STATE_RUNNING)
    assert sent.start_time == sent.occurrence_time
    assert sent.end_time.ToDatetime() - sent.start_time.ToDatetime() == timedelta(hours=2)
    after = await read(service, made.id)
    assert after.last_mailing_id == sent.id
    assert after.next_times[0].ToDatetime() > sent.occurrence_time.ToDatetime()
    assert await events_of(pool) == ["schedule.created", "schedule.ran"]
    assert 0 < await maker(pool).poll() <= 60


async def test_makers_that_look_at_once_make_each_mailing_once(service: Service, pool: asyncpg.Pool) -> None:
    """Fails without the lock, and with it where a look sees what was there before it."""
    ids = [(await create(service, cron=YEARLY)).id for _ in range(20)]
    await pool.execute("UPDATE schedules SET next_at = date_trunc('second', now()) - interval '1 second'")
    makers = [maker(pool) for _ in range(4)]
    while not all(wait > 0.1 for wait in await asyncio.gather(*(one.poll() for one in makers))):
        pass
    assert [len(await made_by(service, one)) for one in ids] == [1] * 20
    assert sum(one.made for one in makers) == 20


async def test_the_index_excludes_a_second_mailing_of_an_occurrence(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, cron=YEARLY, overlap=Overlap.OVERLAP_ALLOW)
    await due(pool, made.id)
    await maker(pool).poll()
    [sent] = await made_by(service, made.id)
    # As if the clock of the database had been set back: the occurrence comes again.
    await pool.execute("UPDATE schedules SET next_at = (SELECT occurrence_at FROM mailings)")
    await maker(pool).poll()
    assert [one.id for one in await made_by(service, made.id)] == [sent.id]
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute(
            "INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts, "
            "initial_backoff, max_backoff, schedule_id, occurrence_at) SELECT id + 1, text, starts_at, state, "
            "audience_mode, semantics, max_attempts, initial_backoff, max_backoff, schedule_id, occurrence_at "
            "FROM mailings"
        )


async def test_a_paused_schedule_makes_nothing_and_makes_up_for_nothing(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, cron=YEARLY)
    await due(pool, made.id)
    for _ in range(2):
        paused = (await service.schedules.PauseSchedule(pb.PauseScheduleRequest(schedule_id=made.id))).schedule
        assert paused.paused
        assert not paused.next_times
    await maker(pool).poll()
    for _ in range(2):
        again = (await service.schedules.ResumeSchedule(pb.ResumeScheduleRequest(schedule_id=made.id))).schedule
        assert not again.paused
        assert len(again.next_times) == 5
    await maker(pool).poll()
    assert not await made_by(service, made.id)
    assert await events_of(pool) == ["schedule.created", "schedule.paused", "schedule.resumed"]


async def test_an_occurrence_is_skipped_while_a_mailing_is_not_over(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, cron=YEARLY)
    for _ in range(2):
        await due(pool, made.id)
        await maker(pool).poll()
    [sent] = await made_by(service, made.id)
    assert await events_of(pool) == ["schedule.created", "schedule.ran", "schedule.skipped"]
    await move_to(pool, sent.id, MailingState.COMPLETED)
    await due(pool, made.id, "0 seconds")
    await maker(pool).poll()
    assert len(await made_by(service, made.id)) == 2


async def test_an_occurrence_waits_for_the_end_of_a_mailing(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, cron=YEARLY, overlap=Overlap.OVERLAP_WAIT)
    await due(pool, made.id, "9 seconds")
    await maker(pool).poll()
    [first] = await made_by(service, made.id)
    await due(pool, made.id, "2 seconds")
    await maker(pool).poll()
    assert 0 < await maker(pool).poll() <= 5
    await service.mailings.CancelMailing(CancelMailingRequest(mailing_id=first.id))
    await maker(pool).poll()
    second, _ = await made_by(service, made.id)
    assert second.occurrence_time.ToDatetime() > first.occurrence_time.ToDatetime()
    expected = ["schedule.created", "schedule.ran", "schedule.waiting", "schedule.ran"]
    assert await events_of(pool) == expected


async def test_what_was_missed_for_too_long_is_in_the_log_only(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, cron="0 0 1 1 *", catch_up=Duration(seconds=60))
    await due(pool, made.id, "40 days")
    await maker(pool).poll()
    assert not await made_by(service, made.id)
    assert await events_of(pool) == ["schedule.created", "schedule.missed"]


async def test_a_schedule_is_triggered_outside_of_its_occurrences(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, end_after=Duration(seconds=60))
    await service.schedules.PauseSchedule(pb.PauseScheduleRequest(schedule_id=made.id))
    request = pb.TriggerScheduleRequest(schedule_id=made.id, request_id=str(uuid4()))
    sent = (await service.schedules.TriggerSchedule(request)).mailing
    assert (sent.schedule_id, sent.HasField("occurrence_time"), sent.HasField("end_time")) == (made.id, False, True)
    assert (await service.schedules.TriggerSchedule(request)).mailing.id == sent.id
    with refused("FAILED_PRECONDITION", "SCHEDULE_OVERLAPS") as info:
        await service.schedules.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=made.id))
    assert info.metadata["mailing"] == str(sent.id)
    assert (await read(service, made.id)).last_mailing_id == sent.id
    await update(service, Schedule(id=made.id, overlap=Overlap.OVERLAP_ALLOW))
    await service.schedules.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=made.id))
    assert len(await made_by(service, made.id)) == 2


async def test_the_mailings_of_a_deleted_schedule_stay(service: Service) -> None:
    made = await create(service)
    sent = (await service.schedules.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=made.id))).mailing
    with refused("ABORTED", "STALE_ETAG"):
        await service.schedules.DeleteSchedule(pb.DeleteScheduleRequest(schedule_id=made.id, etag="x"))
    await service.schedules.DeleteSchedule(pb.DeleteScheduleRequest(schedule_id=made.id))
    with refused("NOT_FOUND", "SCHEDULE_NOT_FOUND") as info:
        await service.schedules.DeleteSchedule(pb.DeleteScheduleRequest(schedule_id=made.id))
    assert info.metadata["schedule"] == str(made.id)
    await service.schedules.DeleteSchedule(pb.DeleteScheduleRequest(schedule_id=made.id, allow_missing=True))
    assert (await get(service, sent.id)).schedule_id == made.id
    assert [one.id for one in await made_by(service, made.id)] == [sent.id]


async def test_one_schedule_that_cannot_be_served_holds_up_no_other(service: Service, pool: asyncpg.Pool) -> None:
    broken, good = await create(service, cron=YEARLY), await create(service, cron="* * * * *")
    await pool.execute("UPDATE schedules SET timezone = 'Nowhere/Else' WHERE id = $1", broken.id)
    for one in (broken, good):
        await due(pool, one.id)
    polling = maker(pool)
    await polling.poll()
    assert len(await made_by(service, good.id)) == 1
    assert await polling.poll() > 0


async def test_a_schedule_made_due_wakes_the_maker(pool: asyncpg.Pool) -> None:
    polling = maker(pool)
    running = asyncio.create_task(polling.run())
    try:
        await pool.execute(
            "INSERT INTO schedules (id, template, cron, timezone, overlap, catch_up, next_at) "
            """VALUES (1, '{"text": "Hi"}', '* * * * *', 'UTC', 1, interval '1 hour', date_trunc('second', now()))"""
        )
        while not polling.made:
            polling.hint()
            await asyncio.sleep(0)
    finally:
        running.cancel()
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 1
