"""The admin port's HTTP server with whatever may come to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

import pytest

from server.observability import admin_http
from server.observability.admin_http import AdminHttp, Reply

Address = tuple[str, int]


async def echo(headers: Mapping[str, str]) -> Reply:
    return Reply(HTTPStatus.OK, f"{headers.get('accept', '')}\n".encode())


async def broken(_: Mapping[str, str]) -> Reply:
    raise RuntimeError("a secret")


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    server = AdminHttp({"/echo": echo, "/broken": broken})
    yield "127.0.0.1", await server.start("127.0.0.1", 0)
    await server.stop()


async def asked(address: Address, request: bytes) -> str:
    """Return what a connection gets for these bytes."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        answer = await reader.read()
        writer.close()
    return answer.decode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /echo HTTP/1.1\r\nAccept: a\r\n\r\n", "200 OK"),
        (b"GET /echo?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
        (b"nonsense\r\n\r\n", "400 Bad Request"),
        (b"\x00\xff\xfe \xff \r\n\r\n", "400 Bad Request"),
        (b"GET /echo SMTP\r\n\r\n", "400 Bad Request"),
        (b"\r\n\r\n", "400 Bad Request"),
        (b"GET /echo HTTP/1.1\r\nno colon\r\n: no name\r\n\r\n", "200 OK"),
        (b"GET /" + b"a" * 100_000, "431 Request Header Fields Too Large"),
        (b"GET /echo HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", "431 Request Header Fields Too Large"),
        (b"GET /broken HTTP/1.1\r\n\r\n", "500 Internal Server Error"),
    ],
)
async def test_every_request_gets_one_answer(address: Address, request_: bytes, status: str) -> None:
    answer = await asked(address, request_)
    assert answer.startswith(f"HTTP/1.1 {status}\r\n")
    assert "secret" not in answer


async def test_the_head_comes_without_a_body(address: Address) -> None:
    head, _, body = (await asked(address, b"HEAD /echo HTTP/1.1\r\nAccept: abc\r\n\r\n")).partition("\r\n\r\n")
    assert "Content-Length: 4" in head
    assert body == ""


async def test_whoever_says_nothing_is_let_go(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the request may take for ever."""
    monkeypatch.setattr(admin_http, "PATIENCE", 0.05)
    assert await asked(address, b"GET /echo HT") == ""


async def test_nobody_who_is_connected_holds_the_end_up() -> None:
    """Fails when `stop` waits for requests: this one never comes."""
    server = AdminHttp({})
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HT")
    async with asyncio.timeout(admin_http.PATIENCE / 2):
        await asked(("127.0.0.1", port), b"GET / HTTP/1.1\r\n\r\n")  # the other one is being served, too
        await server.stop()
        assert await reader.read() == b""
    writer.close()


async def test_more_connections_than_there_may_be_are_closed_and_the_others_served(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when connections are not counted."""
    monkeypatch.setattr(admin_http, "MOST_CONNECTIONS", 2)
    held = [await asyncio.open_connection(*address) for _ in range(2)]
    assert await asked(address, b"") == ""
    for _, writer in held:
        writer.write(b"GET /echo HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(30):
        answers = [await reader.read() for reader, _ in held]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    for _, writer in held:
        writer.close()
    assert (await asked(address, b"GET /echo HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 200")
