"""Mailings written in the console: timetable, quota and audience in the form, its preview, and later changes."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from mailing.builders import new_client, new_mailing
from mailing.sending_hours import hours_text
from mailing.v1.client_service_pb2 import CreateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, GetMailingRequest, UpdateMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.segment_pb2 import Segment
from mailing.v1.segment_service_pb2 import CreateSegmentRequest
from mailing.v1.segment_service_pb2_grpc import SegmentServiceStub
from tests.support.console import Browser, at_field, filled_in, previewed

NEW = "/mailings/new"
TESTED = "SELECT count(*) FROM log WHERE event = 'mailing.tested'"
TIMETABLE = {
    "sending_hours": "mon-fri 09:00-18:00\r\nsat 10:00-14:00 Europe/Riga",
    "holidays": "latvia",
    "local_start": "2090-06-01T10:00",
    "end": "2090-06-03T10:00",
    "skip_after": "1h30m",
    "max_per_day": "5000",
    "max_per_day_timezone": "Europe/Riga",
}


async def stored(channel: grpc.aio.Channel, mailing_id: int | str) -> Mailing:
    request = GetMailingRequest(mailing_id=int(mailing_id))
    return (await MailingServiceStub(channel).GetMailing(request)).mailing


async def create(channel: grpc.aio.Channel, **fields: Any) -> Mailing:
    request = CreateMailingRequest(mailing=new_mailing("Hello {tag}", **fields))
    return (await MailingServiceStub(channel).CreateMailing(request)).mailing


async def add_segment(channel: grpc.aio.Channel, name: str = "adults") -> None:
    segment = Segment(name=name, filter_text='tag = "vip" AND attributes.age >= 18')
    await SegmentServiceStub(channel).CreateSegment(CreateSegmentRequest(segment=segment))


async def add_client(channel: grpc.aio.Channel, phone: str, **fields: Any) -> None:
    request = CreateClientRequest(client=new_client(phone, "Europe/Riga", **fields))
    await ClientServiceStub(channel).CreateClient(request)


async def test_a_mailing_has_the_timetable_and_the_quota_of_its_form(
    browser: Browser, channel: grpc.aio.Channel, pool: asyncpg.Pool
) -> None:
    await pool.execute("INSERT INTO calendars (name, days) VALUES ('latvia', '{}')")
    made = await browser.send(NEW, NEW, text="Hello", request_id=str(uuid4()), **TIMETABLE)
    assert made.status_code == 303, made.text
    mailing = await stored(channel, made.headers["location"].rpartition("/")[2])
    assert [hours_text(one) for one in mailing.sending_hours] == TIMETABLE["sending_hours"].split("\r\n")
    assert (mailing.local_start.year, mailing.local_start.hours) == (2090, 10)
    assert not mailing.HasField("start_time")
    assert (mailing.holidays, mailing.skip_after.seconds) == ("latvia", 5400)
    assert (mailing.max_per_day, mailing.max_per_day_timezone) == (5000, "Europe/Riga")
    page = (await browser.get(made.headers["location"])).text
    for text in ("mon-fri 09:00-18:00", "sat 10:00-14:00 Europe/Riga", "latvia", "by more than 1h 30m", "Jun 1, 2090"):
        assert text in page, text
    assert "at most 5,000 on each day of Europe/Riga" in page
    for path in ("/", "/mailings"):
        assert "Jun 1, 2090, 10:00" in (await browser.get(path)).text, path


async def test_a_test_message_that_is_clicked_twice_is_sent_once(browser: Browser, pool: asyncpg.Pool) -> None:
    """And is sent again by a click on what the page shows then. Fails without an id for each answer."""
    fields = await filled_in(browser, NEW) | {"text": "Hello", "test_phone": "79261234567"}
    clicks = [browser.client.post(f"{NEW}/test", data=fields, headers={"hx-request": "true"}) for _ in range(2)]
    shown, _ = await asyncio.gather(*clicks)
    assert "Hello" in shown.text
    assert await pool.fetchval(TESTED) == 1
    found = re.search(r'name="test_id" value="([^"]+)"', shown.text)
    assert found
    await browser.client.post(f"{NEW}/test", data=fields | {"test_id": found[1]}, headers={"hx-request": "true"})
    assert await pool.fetchval(TESTED) == 2
    assert (await browser.client.post(NEW, data=fields)).status_code == 303, "the mailing has an id of its own"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("sending_hours", "weekdays 9 to 5", "is not [DAYS] HH:MM-HH:MM [ZONE]"),
        ("sending_hours", "mon 09:00-18:00\nmon 17:00-19:00", "no. 2: overlaps sending_hours[0]"),
        ("sending_hours", "09:00-18:00 Mars/Base", "no. 1: 'Mars/Base' is not a time zone"),
        ("holidays", "atlantis", "There is no calendar 'atlantis'"),
        ("local_start", "soon", "is not a local time such as"),
        ("local_start", "1999-01-01T10:00", "must be"),
        ("skip_after", "later", "is not a span such as"),
        ("skip_after", "1s", "must be from 1 minute to 366 days"),
        ("max_per_day", "-1", "must be from 0"),
        ("max_per_day", "9" * 30, "is out of range"),
        ("max_per_day_timezone", "Mars/Base", "Mars/Base"),
        ("segment", "nobody", "there is no segment 'nobody'"),
        ("endpoint", "carrier-pigeon", "There is no endpoint 'carrier-pigeon'"),
        ("filter_text", 'tag = "vip" OR tag', "the text ends in the middle, at character 19"),
        ("filter_text", 'timezone = "Mars/Base"', "is not a time zone"),
        ("filter_text", 'segment = "nobody"', "there is no segment 'nobody'"),
    ],
)
async def test_what_is_wrong_stands_at_the_field(browser: Browser, name: str, text: str, sentence: str) -> None:
    fields = dict.fromkeys((*TIMETABLE, "segment", "filter_text", "endpoint"), "")
    answer = await browser.send(NEW, NEW, **fields | {"text": "Hello", name: text})
    assert answer.status_code == 422
    assert sentence in at_field(answer, name)
    assert answer.text.count("aria-invalid") == 1
    assert sentence in unescape(await previewed(browser, NEW, **fields | {name: text}))


async def test_a_filter_that_cannot_be_read_has_a_caret_under_the_place(browser: Browser) -> None:
    answer = await browser.send(NEW, NEW, text="Hello", filter_text='tag = "vip" AND age >= 18')
    shown = at_field(answer, "filter_text").splitlines()
    assert shown[1].index("age") == shown[2].index("^")


async def test_two_starts_are_refused_at_the_second(browser: Browser) -> None:
    both = {"start": "2090-06-01T10:00", "local_start": "2090-06-01T10:00"}
    answer = await browser.send(NEW, NEW, text="Hello", **both)
    assert "must not be given together with start_time" in at_field(answer, "local_start")


async def test_an_audience_is_told_once(browser: Browser, channel: grpc.aio.Channel) -> None:
    """Fails when a filter as text silently replaces what else was chosen."""
    answer = await browser.send(NEW, NEW, text="Hello", tags="vip", filter_text='tag = "news"')
    assert "leave the other fields of the audience empty" in at_field(answer, "filter_text")


async def test_a_segment_is_chosen_from_those_that_there_are(browser: Browser, channel: grpc.aio.Channel) -> None:
    await add_segment(channel)
    await add_client(channel, "37120000001", tag="vip", attributes={"age": "40"})
    await add_client(channel, "37120000002", tag="vip", attributes={"age": "9"})
    assert '<option value="adults">' in (await browser.get(NEW)).text
    assert "<dt>Clients that match</dt><dd>1</dd>" in await previewed(browser, NEW, segment="adults")
    made = await browser.send(NEW, NEW, text="Hello", segment="adults")
    assert (await stored(channel, made.headers["location"].rpartition("/")[2])).filter.segment == "adults"
    assert "<span>segment adults</span>" in (await browser.get(made.headers["location"])).text


async def test_a_preview_follows_hours_and_quota(browser: Browser, channel: grpc.aio.Channel) -> None:
    """Fails when the preview leaves out what the mailing would have."""
    for number in range(3):
        await add_client(channel, f"3712000000{number}")
    now = datetime.now(UTC)
    day = (now + timedelta(days=3)).strftime("%a").lower()
    end = f"{now + timedelta(hours=20):%Y-%m-%dT%H:%M}"
    closed = await previewed(browser, NEW, end=end, sending_hours=f"{day} 12:00-13:00 UTC")
    assert "No sending hours till the end" in closed
    limited = await previewed(browser, NEW, end=f"{now + timedelta(minutes=5):%Y-%m-%dT%H:%M}", max_per_day="1")
    assert "<dt>Sendable before the end</dt><dd>3</dd>" not in limited
    assert "<dt>Sendable before the end</dt><dd>3</dd>" in await previewed(browser, NEW, end=end, max_per_day="100")


async def test_an_edit_changes_what_was_typed_and_nothing_else(browser: Browser, channel: grpc.aio.Channel) -> None:
    """Fails when a field that nobody touched is written back in the form's own precision."""
    start = datetime.now(UTC) + timedelta(days=1, seconds=17)
    before = await create(channel, title="Old", start=start, max_rate=0.1234567, labels={"team": "shop"})
    path = f"/mailings/{before.id}/edit"
    fields = await filled_in(browser, path)
    assert (fields["title"], fields["max_rate"], fields["labels"]) == ("Old", "0.1234567", "team=shop")
    saved = await browser.send(path, path, **fields | {"title": "New", "sending_hours": "sun 10:00-12:00"})
    assert (saved.status_code, saved.headers["location"]) == (303, f"/mailings/{before.id}")
    after = await stored(channel, before.id)
    assert (after.title, hours_text(after.sending_hours[0])) == ("New", "sun 10:00-12:00")
    assert after.start_time == before.start_time
    assert (after.max_rate, after.retry) == (before.max_rate, before.retry)
    saved = await browser.send(path, path, **await filled_in(browser, path) | {"sending_hours": "", "title": ""})
    emptied = await stored(channel, before.id)
    assert (emptied.title, list(emptied.sending_hours)) == ("", [])


async def test_an_edit_of_what_somebody_else_has_changed_is_refused(
    browser: Browser, channel: grpc.aio.Channel
) -> None:
    before = await create(channel, start="+1h")
    path = f"/mailings/{before.id}/edit"
    fields = await filled_in(browser, path)
    other = UpdateMailingRequest(mailing=Mailing(id=before.id, text="Theirs"))
    await MailingServiceStub(channel).UpdateMailing(other)
    late = await browser.send(path, path, **fields | {"text": "Mine"})
    assert late.status_code == 422
    assert "The etag is stale" in late.text
    assert "Mine</textarea>" in late.text
    assert (await stored(channel, before.id)).text == "Theirs"


async def test_a_filter_beyond_the_fields_is_edited_as_text(browser: Browser, channel: grpc.aio.Channel) -> None:
    before = await create(channel, start="+1h", filter_text='NOT tag = "news" AND attributes.age >= 30')
    path = f"/mailings/{before.id}/edit"
    fields = await filled_in(browser, path)
    assert fields["filter_text"] == 'NOT tag = "news" AND attributes.age >= 30'
    assert fields["tags"] == ""
    await browser.send(path, path, **fields | {"filter_text": 'tag = "news"'})
    assert list((await stored(channel, before.id)).filter.tags) == ["news"]


async def test_a_copy_has_the_timetable_but_no_times(browser: Browser, channel: grpc.aio.Channel) -> None:
    before = await create(channel, start="+1h", end="+2h", max_per_day=7)
    path = f"/mailings/{before.id}/edit"
    await browser.send(path, path, **await filled_in(browser, path) | {"sending_hours": "sun 10:00-12:00"})
    copied = await filled_in(browser, f"{NEW}?clone={before.id}")
    assert (copied["sending_hours"], copied["max_per_day"]) == ("sun 10:00-12:00", "7")
    assert copied["start"] == copied["end"] == copied["local_start"] == ""
