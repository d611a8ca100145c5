"""What the API over HTTP refuses, and how: the status, google.rpc.Status in JSON, nothing done."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from server.api.interceptors import chain, request_ids
from server.console.http_api import serving as http_serving
from tests.support.api import serving
from tests.support.console import Browser, console_of, tokens_of
from tests.support.eventually import eventually

MEBIBYTE = 1 << 20


@asynccontextmanager
async def asked(client: httpx.AsyncClient, path: str, **parts: Any) -> AsyncIterator[AsyncIterator[Any]]:
    """Lend the lines of a stream as JSON."""
    async with client.stream("GET", path, **parts) as answer:
        yield (json.loads(line) async for line in answer.aiter_lines())


@pytest.mark.parametrize(
    ("verb", "path", "parts", "status", "sentence"),
    [
        ("GET", "/v1/nothing", {}, 404, "There is no such path"),
        ("GET", "/v1/clients/x", {}, 404, "There is no such path"),
        ("PUT", "/v1/clients/1", {"json": {}}, 405, "This path takes GET, PATCH, DELETE."),
        ("POST", "/v1/clients", {"content": b"{}"}, 415, "The Content-Type should be application/json"),
        ("POST", "/v1/dispatch:pause", {}, 415, "The Content-Type should be application/json"),
        ("POST", "/v1/clients", {"json": {"tag": "x" * MEBIBYTE}}, 413, "The body is larger than 1 MiB"),
        ("GET", "/v1/clients?phone=79161234567", {}, 400, "phone: A phone does not belong into an address"),
        ("GET", "/v1/clients/27", {}, 404, "There is no client"),
        ("POST", "/v1/clients", {"json": {"phone": "x"}}, 400, ""),
        ("GET", "/v1/clients/27", {"headers": {"origin": "https://evil.example"}}, 403, "A page of another site"),
        ("GET", "/v1/clients/27", {"headers": {"sec-fetch-site": "cross-site"}}, 403, "A page of another site"),
    ],
)
async def test_a_refusal_is_a_status_in_json(
    browser: Browser, verb: str, path: str, parts: dict[str, Any], status: int, sentence: str
) -> None:
    answer = await browser.client.request(verb, path, **parts)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    refused = answer.json()
    assert refused["message"].startswith(sentence)
    assert refused["code"] > 0
    assert answer.headers["x-request-id"]


async def test_a_bad_field_is_named_in_the_details(browser: Browser) -> None:
    answer = await browser.client.post("/v1/clients", json={"phone": "x", "timezone": "Mars/Base"})
    info, bad = answer.json()["details"]
    assert (info["@type"], info["reason"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "INVALID_FIELD")
    assert [one["field"] for one in bad["fieldViolations"]] == ["client.phone", "client.timezone"]
    own = (await browser.client.get("/v1/clients?colour=red")).json()["details"]
    assert own[0]["reason"] == "INVALID_FIELD"
    assert own[1]["fieldViolations"][0]["field"] == "colour"


async def test_a_stream_that_cannot_begin_has_the_status_and_an_error_line(browser: Browser) -> None:
    answer = await browser.client.get("/v1/mailings/99:watch")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/x-ndjson")
    (line,) = answer.text.splitlines()
    assert json.loads(line)["error"]["details"][0]["reason"] == "MAILING_NOT_FOUND"


async def test_the_token_is_the_callers_own(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Fails if a session of the console counts, or a token is lost on the way."""
    authenticator, tokens = tokens_of(tmp_path, reader="clients.read", boss="admin")
    async with (
        serving(pool, authenticator=authenticator) as (_, address),
        console_of(address, everybody=False) as browser,
    ):
        await browser.sign_in(tokens["boss"])
        without = await browser.get("/v1/clients")
        assert (without.status_code, without.headers["www-authenticate"]) == (401, "Bearer")
        bearer = {"authorization": f"Bearer {tokens['reader']}"}
        assert (await browser.get("/v1/clients", **bearer)).json() == {}
        refused = await browser.get("/v1/mailings", **bearer)
        assert (refused.status_code, refused.json()["details"][0]["reason"]) == (403, "SCOPE_MISSING")
        async with asked(browser.client, "/v1/dispatch:watch", headers=bearer) as lines:
            assert (await anext(lines))["error"]["code"] == 7


async def test_the_request_id_goes_to_the_api_and_comes_back(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def begin_request(context: Any, metadata: Any) -> None:
        seen.append(dict(metadata)["x-request-id"])
        request_ids.begin_request(context, metadata)

    monkeypatch.setattr(chain, "begin_request", begin_request)
    given = await browser.get("/v1/mailings", x_request_id="abc-1")
    made = await browser.get("/v1/mailings", x_request_id="not one")
    assert [given.headers["x-request-id"], made.headers["x-request-id"]] == seen
    assert (seen[0], len(seen[1])) == ("abc-1", 32)


async def test_a_caller_has_so_many_streams_and_leaving_ends_one(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the call of a caller that left stays open."""
    monkeypatch.setattr(http_serving, "MOST_STREAMS", 1)
    path = "/v1/messages:watch"

    async def status() -> int:
        async with browser.client.stream("GET", path) as answer:
            return answer.status_code

    async with browser.client.stream("GET", path) as first:
        assert first.status_code == 200
        refused = await browser.client.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert await eventually(status, lambda one: one == 200)
