"""Callers by HTTP who are slow, endless or gone hold nothing that others need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from server.console import listener
from server.console.http_api import exchange, held
from server.console.http_api.held import HeldBytes
from tests.support.api import serving
from tests.support.console import Browser, console_of
from tests.support.eventually import eventually
from tests.support.ledger import add_clients

HEAD = "Host: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(listener, "UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(exchange, "PATIENCE", 0.5)


@asynccontextmanager
async def connected(
    browser: Browser, text: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Lend a connection that has sent this."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(browser.url).port, limit=1024)
    try:
        writer.write(text.encode())
        yield reader, writer
    finally:
        writer.transport.abort()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection is closed; a reset closes it, too."""
    async with asyncio.timeout(20):
        data = b""
        try:
            while part := await reader.read(65536):
                data += part
        except ConnectionError:
            pass
        return data


async def test_a_head_that_does_not_come_is_cut_off(browser: Browser) -> None:
    for begun in ("", "GET /v1/clients HTTP/1.1\r\nHost: "):
        async with connected(browser, begun) as (reader, _):
            assert await rest_of(reader) == b""


async def test_an_endless_head_is_cut_off(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails, by memory, where only the time of a head is limited."""
    monkeypatch.setattr(listener, "HEAD_SECONDS", 60.0)
    async with connected(browser, "GET /v1/clients HTTP/1.1\r\nX-Long: " + "a" * 100_000) as (reader, _):
        assert await rest_of(reader) == b""


async def test_a_body_that_does_not_come_is_refused_and_the_connection_closed(browser: Browser) -> None:
    begun = f"POST /v1/clients HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\n{{"
    async with connected(browser, begun) as (reader, _):
        answer = await rest_of(reader)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_TOO_SLOW" in answer


async def test_a_body_is_not_read_beyond_the_limit(browser: Browser) -> None:
    begun = f"POST /v1/clients HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    chunk = "10000\r\n" + "x" * 0x10000 + "\r\n"
    async with connected(browser, begun + chunk * 17) as (reader, _):
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 413 ")


async def test_a_stream_that_nobody_reads_ends(pool: asyncpg.Pool) -> None:
    """Fails when the connection, or the call behind it, stays for as long as its caller likes."""
    await add_clients(pool, 20_000, attributes=json.dumps({"note": "x" * 500}))
    registry = CollectorRegistry()

    def ended() -> float:
        labels = {"grpc_method": "ExportClients", "grpc_service": "mailing.v1.ClientService"}
        named = [one for metric in registry.collect() for one in metric.samples]
        handled = (one for one in named if one.name == "grpc_server_handled_total")
        return sum(one.value for one in handled if labels.items() <= one.labels.items())

    async with serving(pool, registry=registry) as (_, address), console_of(address) as browser:
        begun = f"GET /v1/clients:export HTTP/1.1\r\n{HEAD}\r\n"
        async with connected(browser, begun) as (reader, _):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await eventually(ended)
            assert len(await rest_of(reader)) < 10_000_000
        assert len((await browser.get("/v1/clients:export")).text) > 10_000_000


async def test_the_connections_that_ask_for_nothing_make_room(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(listener, "HEAD_SECONDS", 60.0)
    async with connected(browser) as (first, _), connected(browser) as (second, _):
        assert (await browser.get("/v1/clients")).status_code == 200
        assert await rest_of(first) == b""
        assert not second.at_eof()


async def test_when_memory_is_short_the_slowest_is_cut_off(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 60.0)
    monkeypatch.setattr(held.HeldBytes.__init__, "__defaults__", (1_000_000,))
    begun = f"POST /v1/clients HTTP/1.1\r\n{HEAD}Content-Length: 1000000\r\n\r\n" + " " * 900_000
    async with console_of(address) as browser, connected(browser, begun) as (reader, _):
        answer = await browser.client.post(
            "/v1/clients", content=b" " * 900_000, headers={"content-type": "application/json"}
        )
        assert "details" in answer.json()
        assert await rest_of(reader) == b""


def test_the_oldest_that_holds_bytes_makes_room() -> None:
    all_of_them, cut = HeldBytes(100), list[str]()
    with all_of_them.hold(lambda: cut.append("idle")), all_of_them.hold(lambda: cut.append("slow")) as slow:
        slow.add(80)
        with all_of_them.hold(lambda: cut.append("new")) as new:
            new.add(60)
            assert cut == ["slow"]
            slow.add(500)
            new.add(40)
    with all_of_them.hold(lambda: cut.append("next")) as following:
        following.add(100)
    assert cut == ["slow"]
