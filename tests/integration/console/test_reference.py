"""The reference at /docs/: whole, for everybody, and without a script of its own. The page's curl lines work."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
from pathlib import Path

import asyncpg
import pytest

from server.console.http_api.bindings import bindings
from server.console.screens.reference import DESCRIPTION
from tests.support.api import serving
from tests.support.console import Browser, console_of, tokens_of
from tests.support.documents import page, section, shell_lines

LINES = shell_lines(section(page("http"), "## With curl"), "curl")


async def test_the_reference_needs_no_sign_in_and_no_script_of_its_own(pool: asyncpg.Pool, tmp_path: Path) -> None:
    authenticator, _ = tokens_of(tmp_path, boss="admin")
    async with (
        serving(pool, authenticator=authenticator) as (_, address),
        console_of(address, everybody=False) as browser,
    ):
        answer = await browser.get("/docs")
        assert (answer.status_code, answer.headers["location"]) == (308, "/docs/")
        answer = await browser.get("/docs/")
        assert answer.status_code == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert re.findall(r"<script(?! defer src=\"/static/)|style=|\bon\w+=", answer.text) == []
        description = await browser.get("/docs/openapi.json")
        assert description.json() == json.loads(DESCRIPTION.read_bytes())


async def test_the_reference_has_each_method_and_each_link_leads_somewhere(browser: Browser) -> None:
    text = (await browser.get("/docs/")).text
    places = re.findall(r'\bid="([\w.]+)"', text)
    assert {one.method.name for one in bindings()} <= set(places)
    assert len(places) == len(set(places))
    assert set(re.findall(r'href="#([\w.]+)"', text)) <= set(places)


async def test_the_lines_of_the_page_work_in_their_order(browser: Browser) -> None:
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    assert len(LINES) > 10
    for line in LINES:
        words = shlex.split(line.replace("$CONSOLE", browser.url).replace("--max-time 3", "--max-time 1"))
        process = await asyncio.create_subprocess_exec(
            *words[:1], "-sS", "--fail-with-body", *words[1:], stdout=-1, stderr=-1
        )
        out, err = await process.communicate()
        assert process.returncode == (28 if "--max-time" in line else 0), (line, out, err)
        documents = [json.loads(one) for one in out.decode().splitlines()]
        assert documents or "messages:watch" in line
        assert "result" in documents[0] if documents and "-N" in words else True
