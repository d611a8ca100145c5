"""Segments in the console: written as text, counted, renamed, and kept while something names them."""

from __future__ import annotations

import grpc
import pytest

from mailing.builders import new_client, new_mailing, new_schedule
from mailing.v1.client_service_pb2 import CreateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_service_pb2 import CreateMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.schedule_service_pb2 import CreateScheduleRequest
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from mailing.v1.segment_pb2 import Segment
from mailing.v1.segment_service_pb2 import CreateSegmentRequest, GetSegmentRequest
from mailing.v1.segment_service_pb2_grpc import SegmentServiceStub
from tests.support.console import Browser, at_field, filled_in

NEW = "/segments/new"
TEXT = 'tag = "vip" AND attributes.age >= 18'


async def create(channel: grpc.aio.Channel, name: str = "adults") -> Segment:
    request = CreateSegmentRequest(segment=Segment(name=name, filter_text=TEXT))
    return (await SegmentServiceStub(channel).CreateSegment(request)).segment


async def test_a_segment_is_written_counted_and_listed(browser: Browser, channel: grpc.aio.Channel) -> None:
    client = new_client("37120000001", "Europe/Riga", tag="vip", attributes={"age": "40"})
    await ClientServiceStub(channel).CreateClient(CreateClientRequest(client=client))
    assert "There is no segment yet." in (await browser.get("/segments")).text
    token = await browser.form_token(NEW)
    fields = {"form_token": token, "filter_text": 'attributes.age>=18 AND tag="vip"'}
    shown = await browser.client.post(f"{NEW}/preview", data=fields, headers={"hx-request": "true"})
    assert "<dt>Clients that match</dt><dd>1</dd>" in shown.text
    assert "attributes.age &gt;= 18 AND tag = &#34;vip&#34;" in shown.text
    made = await browser.send(NEW, NEW, name="adults", filter_text=TEXT)
    assert made.headers["location"] == "/segments"
    page = (await browser.get("/segments")).text
    assert ">adults</a>" in page
    assert '<td class="n">1</td>' in page
    assert "/mailings/new?segment=adults" in page
    assert (await filled_in(browser, "/mailings/new?segment=adults"))["segment"] == "adults"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("name", "two words", "1 to 100 letters"),
        ("name", "ADULTS", "There is a segment 'ADULTS' already"),
        ("filter_text", "", "is required"),
        ("filter_text", 'segment = "adults"', "a segment may not name another one"),
        ("filter_text", "sample(10)", "must be absent"),
    ],
)
async def test_what_is_wrong_with_a_segment_stands_at_its_field(
    browser: Browser, channel: grpc.aio.Channel, name: str, text: str, sentence: str
) -> None:
    await create(channel)
    answer = await browser.send(NEW, NEW, **{"name": "new", "filter_text": TEXT} | {name: text})
    assert answer.status_code == 422
    assert sentence in at_field(answer, name)
    assert answer.text.count("aria-invalid") == 1


async def test_a_text_that_cannot_be_read_has_a_caret_under_the_place(browser: Browser) -> None:
    wrong = 'tag = "vip" and attributes.age >= 18'
    answer = await browser.send(NEW, NEW, name="new", filter_text=wrong)
    shown = at_field(answer, "filter_text").splitlines()
    assert "write AND in capital letters" in shown[0]
    assert shown[1].index("and") == shown[2].index("^")
    assert "tag = &#34;vip&#34; and attributes.age" in answer.text.partition("<textarea")[2]


async def test_a_segment_is_renamed_and_given_another_filter(browser: Browser, channel: grpc.aio.Channel) -> None:
    before = await create(channel)
    path = f"/segments/{before.id}"
    fields = await filled_in(browser, path)
    assert fields["filter_text"] == 'attributes.age >= 18 AND tag = "vip"'
    assert (await browser.send(path, path, **fields | {"name": "grown-ups"})).status_code == 303
    stub = SegmentServiceStub(channel)
    after = (await stub.GetSegment(GetSegmentRequest(segment_id=before.id))).segment
    assert (after.name, after.filter) == ("grown-ups", before.filter)
    late = await browser.send(path, path, **fields | {"filter_text": 'tag = "vip"'})
    assert "The etag is stale" in late.text
    await browser.send(path, path, **await filled_in(browser, path) | {"filter_text": 'tag = "vip"'})
    assert list((await stub.GetSegment(GetSegmentRequest(name="grown-ups"))).segment.filter.tags) == ["vip"]


async def test_a_segment_in_use_stays_and_says_by_what(browser: Browser, channel: grpc.aio.Channel) -> None:
    segment = await create(channel)
    template = new_mailing("Hello", filter_text='segment = "adults"')
    scheduled = new_mailing("Hello", filter_text='segment = "adults"', start="+1h")
    mailing = (await MailingServiceStub(channel).CreateMailing(CreateMailingRequest(mailing=scheduled))).mailing
    request = CreateScheduleRequest(schedule=new_schedule(template, "UTC", cron="0 10 * * 1"))
    schedule = (await ScheduleServiceStub(channel).CreateSchedule(request)).schedule
    path = f"/segments/{segment.id}"
    refused = await browser.send(path, f"{path}/delete")
    assert refused.status_code == 409
    assert "give them another filter first" in refused.text
    assert f'<a href="/mailings/{mailing.id}">' in refused.text
    assert f'<a href="/schedules/{schedule.id}">' in refused.text
    assert (await browser.get(path)).status_code == 200


async def test_a_segment_that_nothing_names_is_deleted(browser: Browser, channel: grpc.aio.Channel) -> None:
    path = f"/segments/{(await create(channel)).id}"
    assert "This cannot be undone." in (await browser.get(f"{path}/delete")).text
    assert (await browser.send(path, f"{path}/delete")).headers["location"] == "/segments"
    assert (await browser.get(path)).status_code == 404
