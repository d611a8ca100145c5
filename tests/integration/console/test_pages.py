"""The pages of the console: what they show, what they carry with them, and that nothing in them is ever run."""

from __future__ import annotations

from uuid import uuid4

import grpc
import pytest

from mailing.builders import new_client, new_mailing, new_schedule
from mailing.v1.client_service_pb2 import CreateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, ListMailingsRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.schedule_service_pb2 import CreateScheduleRequest, GetScheduleRequest
from mailing.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from tests.support.console import Browser

EVIL = """<script>alert(1)</script><img src=x onerror="alert(2)">'"&{{ 7 * 7 }}"""
SCREENS = [
    *("/", "/mailings", "/mailings/new", "/messages", "/clients", "/clients/new", "/clients/import"),
    *("/schedules", "/schedules/new", "/segments", "/segments/new", "/endpoints", "/dispatchers", "/log", "/settings"),
]


async def create_mailing(channel: grpc.aio.Channel, title: str = "Winter", **fields: object) -> int:
    request = CreateMailingRequest(mailing=new_mailing("Hello {tag}", title=title, **fields))  # type: ignore[arg-type]
    return (await MailingServiceStub(channel).CreateMailing(request)).mailing.id


@pytest.mark.parametrize("path", SCREENS)
async def test_every_answer_is_strict_and_kept_by_nobody(browser: Browser, path: str) -> None:
    """Fails for inline script, for a foreign source, and for a page that a proxy may keep."""
    answer = await browser.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "style=" not in answer.text
    assert answer.text.count("<script") == answer.text.count('<script defer src="/static/')


async def test_what_people_wrote_is_shown_as_text(browser: Browser, channel: grpc.aio.Channel) -> None:
    mailing_id = await create_mailing(channel, EVIL, labels={"team": EVIL[:40]})
    for path in ("/", "/mailings", f"/mailings/{mailing_id}", f"/mailings/{mailing_id}/cancel"):
        text = (await browser.get(path)).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


async def test_a_schedule_is_paused_resumed_and_triggered_once(browser: Browser, channel: grpc.aio.Channel) -> None:
    schedule = new_schedule(new_mailing(EVIL[:20]), "Europe/Berlin", cron="0 10 * * 1-5", title=EVIL)
    stub = ScheduleServiceStub(channel)
    made = (await stub.CreateSchedule(CreateScheduleRequest(schedule=schedule))).schedule
    for path in ("/schedules", *(f"/schedules/{made.id}{part}" for part in ("", "/edit", "/delete"))):
        shown = (await browser.get(path)).text
        assert "&lt;script&gt;alert(1)" in shown, path
        assert "<script>alert" not in shown, path
    assert "0 10 * * 1-5" in (await browser.get("/schedules")).text
    for verb, paused in (("pause", True), ("resume", False)):
        assert (await browser.send("/schedules", f"/schedules/{made.id}/{verb}")).status_code == 303
        answer = await stub.GetSchedule(GetScheduleRequest(schedule_id=made.id))
        assert answer.schedule.paused == paused
    fields = {"request_id": str(uuid4())}
    sent = [await browser.send("/schedules", f"/schedules/{made.id}/trigger", **fields) for _ in range(2)]
    assert sent[0].headers["location"] == sent[1].headers["location"]
    assert sent[0].headers["location"] in (await browser.get(f"/mailings?schedule={made.id}")).text
    assert sent[0].headers["location"] + '"' not in (await browser.get(f"/mailings?schedule={made.id + 1}")).text


async def test_a_form_sent_twice_creates_one_mailing(browser: Browser, channel: grpc.aio.Channel) -> None:
    fields = {"text": "Hello", "title": "Once", "request_id": str(uuid4())}
    first = await browser.send("/mailings/new", "/mailings/new", **fields)
    second = await browser.send("/mailings/new", "/mailings/new", **fields)
    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    assert len((await MailingServiceStub(channel).ListMailings(ListMailingsRequest())).mailings) == 1


async def test_what_the_api_refuses_stands_beside_its_field(browser: Browser) -> None:
    answer = await browser.send("/mailings/new", "/mailings/new", text="", priority="5000", max_rate="fast")
    assert answer.status_code == 422
    assert '<em id="e-max_rate">must be a number</em>' in answer.text
    answer = await browser.send("/mailings/new", "/mailings/new", text="", priority="5000")
    assert 'id="e-text"' in answer.text
    assert 'id="e-priority"' in answer.text
    assert 'value="5000"' in answer.text


async def test_a_preview_counts_whom_it_reaches(browser: Browser, channel: grpc.aio.Channel) -> None:
    clients = ClientServiceStub(channel)
    await clients.CreateClient(CreateClientRequest(client=new_client("79031234567", "Europe/Moscow", tag="vip")))
    await clients.CreateClient(
        CreateClientRequest(client=new_client("79031234568", "Europe/Moscow", tag="vip", opted_out=True))
    )
    token = await browser.form_token("/mailings/new")
    fields = {"form_token": token, "text": "Hello {tag}", "tags": "vip"}
    answer = await browser.client.post("/mailings/new/preview", data=fields, headers={"hx-request": "true"})
    assert answer.status_code == 200
    assert "Hello vip" in answer.text
    assert "Client opted out" in answer.text
    assert "<html" not in answer.text


async def test_cancelling_names_what_will_not_be_sent(browser: Browser, channel: grpc.aio.Channel) -> None:
    mailing_id = await create_mailing(channel, start="+1h")
    assert "This cannot be undone." in (await browser.get(f"/mailings/{mailing_id}/cancel")).text
    await browser.send(f"/mailings/{mailing_id}", f"/mailings/{mailing_id}/cancel")
    assert "Cancelled" in (await browser.get(f"/mailings/{mailing_id}")).text


async def test_russian_is_asked_for_or_chosen(browser: Browser) -> None:
    assert '<html lang="ru"' in (await browser.get("/", accept_language="ru-RU,ru;q=0.9,en;q=0.8")).text
    answer = await browser.send("/", "/preferences", language="ru", next="/mailings")
    assert answer.headers["location"] == "/mailings"
    assert '<html lang="ru"' in (await browser.get("/", accept_language="en")).text


async def test_what_does_not_exist_is_said_with_404(browser: Browser) -> None:
    for path in ("/mailings/999999", "/nowhere"):
        answer = await browser.get(path)
        assert answer.status_code == 404, path
        assert "There is no such" in answer.text


async def test_settings_are_changed_in_place(browser: Browser) -> None:
    await browser.send("/dispatchers", "/dispatchers/settings", poll_max="7s")
    assert "<dd>7s</dd>" in (await browser.get("/dispatchers")).text
    wrong = await browser.send("/dispatchers", "/dispatchers/settings", poll_max="soon", max_concurrency="many")
    assert "is not a span such as" in wrong.text


async def test_a_probe_tells_how_it_ended(browser: Browser) -> None:
    answer = await browser.send("/endpoints", "/endpoints/probe", endpoint="default")
    assert "the probe failed: no connection" in answer.text


async def test_the_emergency_stop_stays_until_it_is_taken_back(browser: Browser) -> None:
    await browser.send("/", "/dispatch/pause")
    assert "All sending is stopped." in (await browser.get("/")).text
    await browser.send("/", "/dispatch/resume")
    assert "All sending is stopped." not in (await browser.get("/")).text
