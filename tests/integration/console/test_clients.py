"""Clients in the console: found by phone, edited, opted out, imported with a dry run, exported."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import unquote

import grpc
import httpx
import pytest

from mailing.builders import new_client
from mailing.v1.client_service_pb2 import CreateClientRequest, GetClientRequest, ListClientsRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from server.console.guard import MAX_UPLOAD
from tests.support.console import Browser

PHONE = "37120000001"
TABLE = '''phone;first name;zone
+371 20000001;Anna;Europe/Riga
bad;Bob;Europe/Riga
+371 20000002;Carl;Nowhere/Land
+371 20000003;"Dora ""D""";Europe/Riga
'''
COLUMNS = {"columns": "3", "column-0": "phone", "column-1": "attribute", "column-2": "timezone"}


async def add_client(channel: grpc.aio.Channel) -> int:
    request = CreateClientRequest(client=new_client(PHONE, "Europe/Riga", tag="vip"))
    return (await ClientServiceStub(channel).CreateClient(request)).client.id


async def upload(browser: Browser, content: bytes, **fields: str) -> httpx.Response:
    token = await browser.form_token("/clients/import")
    files = {"file": ("clients.csv", content, "text/csv")}
    return await browser.client.post("/clients/import", data={"form_token": token, **fields}, files=files)


async def count(channel: grpc.aio.Channel) -> int:
    return len((await ClientServiceStub(channel).ListClients(ListClientsRequest())).clients)


async def test_a_client_is_found_by_phone_which_stays_out_of_addresses(
    browser: Browser, channel: grpc.aio.Channel
) -> None:
    client_id = await add_client(channel)
    found = await browser.send("/clients", "/clients/find", phone="+371 2000-0001")
    assert found.headers["location"] == f"/clients/{client_id}"
    found = await browser.send("/messages", "/messages/find", q="+371 2000-0001")
    assert found.headers["location"] == f"/messages?client={client_id}"


async def test_a_filter_with_a_phone_stays_out_of_addresses(browser: Browser, channel: grpc.aio.Channel) -> None:
    """The list, its next page and its export come in answer to a form; another filter has an address to send on."""
    stub = ClientServiceStub(channel)
    for number in range(51):
        await stub.CreateClient(CreateClientRequest(client=new_client(f"371200000{number:02}", "Europe/Riga")))
    fields = {"filter": 'phone = "3712000*"'}
    listed = await browser.send("/clients", "/clients", **fields)
    assert listed.status_code == 200
    assert "37120000001" in listed.text
    links = " ".join(re.findall(r'(?:href|action|formaction)="([^"]*)"', listed.text))
    assert "phone" not in unquote(links)
    assert "3712000" not in unquote(links)
    token = unescape(listed.text.partition('name="page" value="')[2].partition('"')[0])
    second = await browser.send("/clients", "/clients", **fields, page=token)
    assert "37120000050" in second.text
    assert "37120000001" not in second.text
    assert "37120000001" in (await browser.send("/clients", "/clients/export", **fields)).text
    refused = await browser.get("/clients?filter=phone%20%3D%20%223712*%22")
    assert refused.status_code == 400
    assert "37120000001" not in refused.text
    shared = await browser.send("/clients", "/clients", filter='tag = "vip"', now="1")
    assert shared.headers["location"] == "/clients?filter=tag+%3D+%22vip%22&now=1"
    assert "No client matches." in (await browser.get(shared.headers["location"])).text


async def test_editing_keeps_what_somebody_else_has_changed(browser: Browser, channel: grpc.aio.Channel) -> None:
    client_id = await add_client(channel)
    stub = ClientServiceStub(channel)
    etag = (await stub.GetClient(GetClientRequest(client_id=client_id))).client.etag
    path, fields = f"/clients/{client_id}", {"phone": PHONE, "timezone": "Europe/Riga", "etag": etag}
    saved = await browser.send(path, path, **fields, attributes="city=Riga", window_start="09:00", window_end="21:00")
    assert saved.status_code == 303
    client = (await stub.GetClient(GetClientRequest(client_id=client_id))).client
    assert (client.attributes["city"], client.receive_window.duration.seconds) == ("Riga", 12 * 3600)
    late = await browser.send(path, path, **fields, attributes="city=Oslo")
    assert late.status_code == 422
    assert "city=Oslo" in late.text
    wrong = await browser.send(path, path, **fields | {"timezone": "Nowhere"}, window_start="9", attributes="city")
    assert wrong.text.count("aria-invalid") == 2


async def test_a_client_is_opted_out_and_back(browser: Browser, channel: grpc.aio.Channel) -> None:
    path = f"/clients/{await add_client(channel)}"
    await browser.send(path, f"{path}/opt-out")
    assert "Take the opt-out back" in (await browser.get(path)).text
    await browser.send(path, f"{path}/opt-in")
    assert "Receives messages" in (await browser.get(path)).text


async def test_an_import_shows_every_bad_row_before_anything_is_stored(
    browser: Browser, channel: grpc.aio.Channel
) -> None:
    """Fails when rows are counted wrong behind one that is no client."""
    page = (await upload(browser, TABLE.encode())).headers["location"].partition("?")[0]
    assert "Dora &#34;D&#34;" in (await browser.get(page)).text
    checked = await browser.send(page, f"{page}/check", **COLUMNS)
    assert '<td class="n">2</td><td>phone</td>' in checked.text
    assert '<td class="n">3</td><td>timezone</td>' in checked.text
    assert await count(channel) == 0
    refused = await browser.send(page, f"{page}/run", **COLUMNS)
    assert refused.status_code == 422
    assert await count(channel) == 0
    await browser.send(page, f"{page}/run", **COLUMNS, skip="1")
    assert await count(channel) == 2
    exported = (await browser.get("/clients/export")).text
    assert "attributes.first_name" in exported
    assert '"Dora ""D"""' in exported


async def test_a_file_without_zones_gets_one_for_all_rows(browser: Browser, channel: grpc.aio.Channel) -> None:
    page = (await upload(browser, b"phone\n37120000001\n")).headers["location"].partition("?")[0]
    fields = {"columns": "1", "column-0": "phone"}
    missing = await browser.send(page, f"{page}/check", **fields)
    assert "timezone is missing" in missing.text
    await browser.send(page, f"{page}/run", **fields, timezone="Europe/Riga")
    assert await count(channel) == 1


async def test_a_zone_for_new_clients_changes_no_stored_one(browser: Browser, channel: grpc.aio.Channel) -> None:
    """Fails when the zone that a file lacks is written to everybody in it."""
    stored = await add_client(channel)
    for table, columns in ((f"phone\n{PHONE}\n", 1), (f"phone,timezone\n37120000009,\n{PHONE},Europe/Riga\n", 2)):
        page = (await upload(browser, table.encode())).headers["location"].partition("?")[0]
        fields = {"columns": str(columns), "column-0": "phone", "column-1": "timezone", "timezone": "Asia/Omsk"}
        await browser.send(page, f"{page}/run", **fields)
        found = await ClientServiceStub(channel).GetClient(GetClientRequest(client_id=stored))
        assert found.client.timezone == "Europe/Riga"
    added = await ClientServiceStub(channel).GetClient(GetClientRequest(phone="37120000009"))
    assert added.client.timezone == "Asia/Omsk"


@pytest.mark.parametrize(
    ("content", "encoding", "sentence"),
    [
        (
            b"PK\x03\x04 rest",
            "",
            "clients.csv: is an Excel workbook or another zip file: save the sheet as CSV. Nothing",
        ),
        (b"PK\x03\x04 rest", "cp1251", "is an Excel workbook"),
        (b"<!doctype html><table>", "", "is a web page, and not a table"),
        (b"\x89PNG\r\n\x1a\n", "", "is a picture"),
        (TABLE.replace("Anna", "Zoë").encode("cp1252"), "", "is not text in this encoding"),
        (b"phone;timezone\n", "", "has no rows"),
        (b"", "", "has no rows"),
    ],
    ids=["workbook", "workbook as text", "web page", "picture", "encoding", "only a heading", "empty"],
)
async def test_a_file_that_cannot_be_read_is_refused_at_once(
    browser: Browser, content: bytes, encoding: str, sentence: str
) -> None:
    answer = await upload(browser, content, encoding=encoding)
    assert answer.status_code == 422
    assert sentence in answer.text


@pytest.mark.parametrize("encoding", ["", "cp1251"])
async def test_a_russian_table_is_read_whether_its_encoding_is_named(browser: Browser, encoding: str) -> None:
    answer = await upload(browser, TABLE.replace("Anna", "Анна").encode("cp1251"), encoding=encoding)
    assert "Анна" in (await browser.get(answer.headers["location"])).text


async def test_ten_thousand_bad_rows_are_told_and_nothing_is_stored(
    browser: Browser, channel: grpc.aio.Channel
) -> None:
    rows = "".join(f"{number};Nowhere\n" for number in range(10_000))
    page = (await upload(browser, f"phone;timezone\n{rows}".encode())).headers["location"].partition("?")[0]
    fields = {"columns": "2", "column-0": "phone", "column-1": "timezone"}
    answer = await browser.send(page, f"{page}/check", **fields)
    assert "10,000" in answer.text
    assert await count(channel) == 0


async def test_an_upload_over_the_limit_is_refused(browser: Browser) -> None:
    answer = await upload(browser, b"x" * (MAX_UPLOAD + 1))
    assert answer.status_code == 413
    assert "64 MiB" in answer.text


async def test_a_colleague_s_upload_is_nobody_else_s(browser: Browser) -> None:
    assert (await browser.get("/clients/import/some-other-id")).status_code == 422


async def test_clients_are_listed_by_a_text_and_what_is_wrong_with_it_is_shown(
    browser: Browser, channel: grpc.aio.Channel
) -> None:
    await add_client(channel)
    for text, there in (('tag = "vip" AND timezone = Europe/Riga', True), ("NOT tag = vip", False)):
        page = await browser.client.get("/clients", params={"filter": text})
        assert (PHONE in page.text) is there
        export = await browser.client.get("/clients/export", params={"filter": text})
        assert (PHONE in export.text) is there
    page = await browser.client.get("/clients", params={"filter": "tag == vip"})
    assert "  tag == vip\n       ^" in page.text


async def test_a_mailing_with_a_filter_of_groups_is_copied_as_text(browser: Browser, channel: grpc.aio.Channel) -> None:
    created = await browser.send(
        "/mailings/new", "/mailings/new", text="Hi", filter_text='NOT got(3) AND (tag = "a" OR id = 7)'
    )
    mailing = created.headers["location"].rpartition("/")[2]
    page = unescape((await browser.get(f"/mailings/new?clone={mailing}")).text)
    assert '>\nNOT got(3) AND (id = 7 OR tag = "a")</textarea>' in page
    refused = await browser.send("/mailings/new", "/mailings/new", text="Hi", filter_text="tag = a AND")
    assert (refused.status_code, "the text ends in the middle" in refused.text) == (422, True)
