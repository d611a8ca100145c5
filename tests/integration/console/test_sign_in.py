"""Who may in, for how long, and that nobody acts in another's name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from time import time

import asyncpg
import pytest
from starlette.responses import Response

from server.console.guard import MAX_BODY
from server.console.sessions import Sessions
from server.console.sign_in import Attempts, local_path
from tests.support.api import serving
from tests.support.console import Browser, console_of, tokens_of


@pytest.fixture
async def tokens(pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[tuple[Browser, dict[str, str]]]:
    """Yield a browser at a console whose API asks for tokens, and the tokens."""
    authenticator, tokens = tokens_of(
        tmp_path, boss="all", viewer="mailings.read,clients.write", reader="mailings.read,clients.read"
    )
    async with serving(pool, authenticator=authenticator) as (_, address), console_of(address) as browser:
        yield browser, tokens


async def test_signing_in_leads_back_to_the_page(tokens: tuple[Browser, dict[str, str]]) -> None:
    browser, known = tokens
    answer = await browser.get("/mailings?state=running")
    assert answer.headers["location"] == "/sign-in?next=/mailings%3Fstate%3Drunning"
    answer = await browser.send("/sign-in", "/sign-in", token=known["boss"], next="/mailings?state=running")
    assert answer.headers["location"] == "/mailings?state=running"
    assert (await browser.get("/mailings")).status_code == 200


async def test_a_wrong_token_is_refused_and_then_slowed_down(tokens: tuple[Browser, dict[str, str]]) -> None:
    browser, known = tokens
    statuses = [(await browser.sign_in(f"mlg_wrong{number}")).status_code for number in range(11)]
    assert statuses == [401] * 10 + [429]
    assert (await browser.sign_in(known["boss"])).status_code == 429


async def test_cookies_are_out_of_reach_of_scripts_and_other_sites(tokens: tuple[Browser, dict[str, str]]) -> None:
    browser, known = tokens
    answer = await browser.sign_in(known["boss"])
    session = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("mailing-session-0"))
    assert "HttpOnly" in session
    assert "SameSite=lax" in session
    assert known["boss"] not in session
    assert known["boss"] not in (await browser.get("/")).text


async def test_signing_out_ends_every_copy_of_the_session(tokens: tuple[Browser, dict[str, str]]) -> None:
    browser, known = tokens
    await browser.sign_in(known["boss"])
    copy = dict(browser.client.cookies)
    await browser.send("/mailings", "/sign-out")
    browser.client.cookies.clear()
    browser.client.cookies.update(copy)
    assert (await browser.get("/mailings")).headers["location"].startswith("/sign-in")


async def test_who_may_not_write_sees_no_buttons_and_gets_403(tokens: tuple[Browser, dict[str, str]]) -> None:
    browser, known = tokens
    await browser.sign_in(known["viewer"])
    text = (await browser.get("/mailings")).text
    assert "New mailing</a>" not in text
    assert 'href="/dispatchers"' not in text
    answer = await browser.send("/mailings", "/mailings/1/pause")
    assert answer.status_code == 403
    assert "mailings.write" in answer.text
    assert (await browser.send("/mailings", "/dispatch/pause")).status_code == 403


async def test_who_may_only_read_plans_sees_them_without_buttons(tokens: tuple[Browser, dict[str, str]]) -> None:
    browser, known = tokens
    await browser.sign_in(known["boss"])
    await browser.send("/segments/new", "/segments/new", name="vips", filter_text='tag = "vip"')
    await browser.send("/schedules/new", "/schedules/new", text="Hello", cron="0 10 * * 1", timezone="UTC")
    browser.client.cookies.clear()
    await browser.sign_in(known["reader"])
    pages = {
        path: (await browser.get(path)).text for path in ("/schedules", "/schedules/1", "/segments", "/segments/1")
    }
    assert "0 10 * * 1" in pages["/schedules/1"]
    assert ">vips</a>" in pages["/segments"]
    for text in ("New schedule</a>", "New segment</a>", ">Pause<", ">Send now<", ">Edit<", "Delete…", ">Save<"):
        assert not [path for path, page in pages.items() if text in page], text
    for path in ("/schedules/1/trigger", "/schedules/1/delete", "/segments/1/delete"):
        assert (await browser.send("/schedules", path)).status_code == 403, path
    for path, fields in (("/segments/new", {"name": "more"}), ("/schedules/new", {"text": "Hello"})):
        assert (await browser.send("/schedules", path, **fields)).status_code == 403, path


async def test_a_change_without_the_form_s_token_is_refused(tokens: tuple[Browser, dict[str, str]]) -> None:
    browser, known = tokens
    await browser.sign_in(known["boss"])
    await browser.get("/mailings")
    for fields in ({}, {"form_token": ""}, {"form_token": "guess"}):
        assert (await browser.client.post("/dispatch/pause", data=fields)).status_code == 403
    token = await browser.form_token("/mailings")
    foreign = [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
    for headers in foreign:
        answer = await browser.client.post("/dispatch/pause", data={"form_token": token}, headers=headers)
        assert answer.status_code == 403, headers


async def test_another_host_s_name_is_refused_without_sign_in(browser: Browser) -> None:
    """A name that points to loopback could otherwise read everything (DNS rebinding)."""
    assert (await browser.get("/", host="evil.example")).status_code == 421
    assert (await browser.get("/", host="localhost:1234")).status_code == 200


async def test_a_form_over_its_limit_is_refused(browser: Browser) -> None:
    answer = await browser.send("/mailings/new", "/mailings/new", text="x" * (MAX_BODY + 1))
    assert answer.status_code == 413
    assert "Nothing was changed. The limit is 1 MiB." in answer.text


def test_only_paths_of_the_console_are_gone_back_to() -> None:
    for evil in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"):
        assert local_path(evil) == "/"
    assert local_path("/mailings?state=running") == "/mailings?state=running"


def test_a_session_ends_with_its_token_and_with_its_secret() -> None:
    now = time()
    sessions = Sessions("s" * 32, secure=True, clock=lambda: now)
    response = Response()
    sessions.begin(response, "Ann", "t" * 9000, now + 60)
    lines = [value.decode() for name, value in response.raw_headers if name == b"set-cookie"]
    cookies = dict(line.split(";")[0].split("=", 1) for line in lines if "Max-Age=0" not in line)
    assert all("Secure" in line for line in lines)
    assert all(name.startswith("__Host-") for name in cookies)
    session = sessions.read(cookies)
    assert session is not None
    assert session.token == "t" * 9000
    assert Sessions("other" * 8, secure=True).read(cookies) is None
    assert Sessions("s" * 32, secure=True, clock=lambda: now + 61).read(cookies) is None
    sessions.end(Response(), session)
    assert sessions.read(cookies) is None


def test_failures_are_forgotten_after_a_minute() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(10):
        attempts.failed("10.0.0.1")
    assert attempts.too_many("10.0.0.1")
    assert not attempts.too_many("10.0.0.2")
    now[0] = 61.0
    assert not attempts.too_many("10.0.0.1")
