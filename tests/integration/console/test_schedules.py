"""Schedules in the console: written with their next times, changed, shown with what they made, deleted."""

from __future__ import annotations

import grpc
import pytest

from mailing.builders import new_mailing, new_schedule
from mailing.v1.mailing_service_pb2 import ListMailingsRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.schedule_pb2 import Schedule
from mailing.v1.schedule_service_pb2 import (
    CreateScheduleRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    TriggerScheduleRequest,
)
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from tests.support.console import Browser, at_field, filled_in, previewed

NEW = "/schedules/new"
FIELDS = {
    "schedule_title": "Weekly",
    "cron": "0 10 * * 1",
    "rrule": "",
    "timezone": "Europe/Riga",
    "end_after": "12h",
    "overlap": "wait",
    "catch_up": "30m",
    "title": "News of the week",
    "text": "Hello {tag}",
    "tags": "news",
    "sending_hours": "mon-fri 09:00-18:00",
    "max_per_day": "500",
}


async def create(channel: grpc.aio.Channel) -> Schedule:
    template = new_mailing("Hello", title="News", max_rate=3)
    schedule = new_schedule(template, "Europe/Riga", cron="0 10 * * 1", title="Weekly", end_after="12h")
    return (await ScheduleServiceStub(channel).CreateSchedule(CreateScheduleRequest(schedule=schedule))).schedule


async def stored(channel: grpc.aio.Channel, schedule_id: int) -> Schedule:
    request = GetScheduleRequest(schedule_id=schedule_id)
    return (await ScheduleServiceStub(channel).GetSchedule(request)).schedule


async def test_a_form_sent_twice_creates_one_schedule(browser: Browser, channel: grpc.aio.Channel) -> None:
    fields = FIELDS | {"request_id": (await filled_in(browser, NEW))["request_id"]}
    made = [await browser.send(NEW, NEW, **fields) for _ in range(2)]
    assert made[0].status_code == 303, made[0].text
    assert made[0].headers["location"] == made[1].headers["location"]
    [schedule] = (await ScheduleServiceStub(channel).ListSchedules(ListSchedulesRequest())).schedules
    assert (schedule.title, schedule.cron, schedule.timezone) == ("Weekly", "0 10 * * 1", "Europe/Riga")
    assert (schedule.end_after.seconds, schedule.catch_up.seconds) == (12 * 3600, 1800)
    assert schedule.overlap == Schedule.OVERLAP_WAIT
    template = schedule.mailing
    assert (template.title, template.max_per_day, list(template.filter.tags)) == ("News of the week", 500, ["news"])
    page = (await browser.get(made[0].headers["location"])).text
    assert page.count("</time>") == len(schedule.next_times) == 5
    assert "mon-fri 09:00-18:00" in page
    assert "It has made no mailing yet." in page


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("cron", "0 10 31 2 *", "has a bad day-of-month"),
        ("cron", "", "is required"),
        ("timezone", "Mars/Base", "is not a time zone"),
        ("rrule", "FREQ=DAILY", "leave it empty, or the cron expression"),
        ("end_after", "1s", "must be 1 minute to 366 days"),
        ("catch_up", "sometimes", "is not a span such as"),
        ("text", "", "is required"),
        ("title", "x" * 201, "must have at most 200 characters"),
        ("schedule_title", "x" * 201, "must have at most 200 characters"),
        ("sending_hours", "mon 09:00-18:00\nmon 17:00-19:00", "no. 2: overlaps"),
    ],
)
async def test_what_is_wrong_with_a_schedule_stands_at_its_field(
    browser: Browser, name: str, text: str, sentence: str
) -> None:
    answer = await browser.send(NEW, NEW, **FIELDS | {name: text})
    assert answer.status_code == 422
    assert sentence in at_field(answer, name)
    assert answer.text.count("aria-invalid") == 1


async def test_a_preview_has_the_next_times_and_stores_nothing(browser: Browser, channel: grpc.aio.Channel) -> None:
    shown = await previewed(browser, NEW, **FIELDS)
    assert shown.count("<time>") == 5
    assert "Nobody matches" in shown
    assert "is never over" not in shown
    assert not (await ScheduleServiceStub(channel).ListSchedules(ListSchedulesRequest())).schedules


@pytest.mark.parametrize(
    ("fields", "endless"),
    [({}, True), ({"snapshot": "1"}, False), ({"end_after": "12h"}, False), ({"overlap": "allow"}, False)],
)
async def test_a_schedule_whose_first_mailing_is_never_over_is_warned_of(
    browser: Browser, fields: dict[str, str], endless: bool
) -> None:
    asked = FIELDS | {"end_after": "", "overlap": "skip"} | fields
    assert ("is never over" in await previewed(browser, NEW, **asked)) == endless
    assert (await filled_in(browser, NEW))["snapshot"] == "1"


async def test_an_edit_of_a_schedule_changes_what_was_typed(browser: Browser, channel: grpc.aio.Channel) -> None:
    before = await create(channel)
    path = f"/schedules/{before.id}/edit"
    fields = await filled_in(browser, path)
    assert (fields["schedule_title"], fields["title"], fields["end_after"]) == ("Weekly", "News", "12h")
    rule = "DTSTART:20261201T100000\r\nRRULE:FREQ=MONTHLY;BYDAY=1MO"
    typed = {"cron": "", "rrule": rule, "overlap": "allow", "text": "Good morning", "end_after": ""}
    saved = await browser.send(path, path, **fields | typed)
    assert saved.status_code == 303, saved.text
    after = await stored(channel, before.id)
    assert (after.cron, after.rrule) == ("", rule.replace("\r\n", "\n"))
    assert (after.overlap, after.mailing.text, after.HasField("end_after")) == (3, "Good morning", False)
    assert (after.mailing.title, after.mailing.max_rate) == ("News", 3)
    late = await browser.send(path, path, **fields | {"schedule_title": "Late"})
    assert "The etag is stale" in late.text


async def test_a_schedule_shows_the_mailings_that_it_made(browser: Browser, channel: grpc.aio.Channel) -> None:
    before = await create(channel)
    stub = ScheduleServiceStub(channel)
    made = (await stub.TriggerSchedule(TriggerScheduleRequest(schedule_id=before.id))).mailing
    path = f"/schedules/{before.id}"
    page = (await browser.get(path)).text
    assert f'<a href="/mailings/{made.id}">News</a>' in page
    assert f'<a href="/schedules/{before.id}">from schedule' in (await browser.get(f"/mailings/{made.id}")).text
    paused = await browser.send(path, f"{path}/pause", one="1")
    assert paused.headers["location"] == path
    assert (await stored(channel, before.id)).paused
    refused = await browser.send(path, f"{path}/trigger")
    assert refused.status_code == 400
    assert "not over" in refused.text


async def test_a_deleted_schedule_leaves_its_mailings(browser: Browser, channel: grpc.aio.Channel) -> None:
    before = await create(channel)
    await ScheduleServiceStub(channel).TriggerSchedule(TriggerScheduleRequest(schedule_id=before.id))
    path = f"/schedules/{before.id}"
    assert "This cannot be undone." in (await browser.get(f"{path}/delete")).text
    assert (await browser.send(path, f"{path}/delete")).headers["location"] == "/schedules"
    assert (await browser.get(path)).status_code == 404
    left = await MailingServiceStub(channel).ListMailings(ListMailingsRequest(schedule_id=before.id))
    assert len(left.mailings) == 1
