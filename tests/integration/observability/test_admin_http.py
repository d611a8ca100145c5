"""The admin port's HTTP server with whatever may come to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.observability import admin_http
from server.observability.admin_http import LIFETIME, MOST_CONNECTIONS, AdminHttp

Address = tuple[str, int]
GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 8_000_000
"""Bytes that no socket buffers."""


async def echo(request: Request) -> Response:
    return PlainTextResponse(f"{request.headers.get('accept', '')}\n")


async def large(_: Request) -> Response:
    return Response(b"a" * LARGE)


async def broken(_: Request) -> Response:
    raise RuntimeError("a secret")


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    server = AdminHttp([Route("/echo", echo), Route("/large", large), Route("/broken", broken)])
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


def received(connection: socket.socket) -> int:
    """Return how many bytes come until the other side closes the connection, or resets it."""
    count = 0
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            count += len(part)
    return count


def cut_off(connection: socket.socket) -> bool:
    """Return whether the other side has closed the connection."""
    connection.setblocking(False)
    try:
        received(connection)
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET, "200 OK"),
        (b"GET /echo?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
        (b"GET /echo HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"nonsense\r\n\r\n", "400 Bad Request"),
        (b"\x00\xff\xfe \xff \r\n\r\n", "400 Bad Request"),
        (b"GET /echo SMTP\r\n\r\n", "400 Bad Request"),
        (b"GET /echo HTTP/1.1\r\nno colon\r\n: no name\r\n\r\n", "400 Bad Request"),
        (b"GET /" + b"a" * 9_000, "400 Bad Request"),
        (b"GET /echo HTTP/1.1\r\n" + b"X: y\r\n" * 1_500, "400 Bad Request"),
    ],
)
async def test_every_request_gets_one_answer_and_no_entry_in_the_log(
    address: Address, request_: bytes, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await asked(address, request_)).startswith(f"HTTP/1.1 {status}\r\n")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_an_answer_that_fails_is_told_in_the_log_only(address: Address, caplog: pytest.LogCaptureFixture) -> None:
    answer = await asked(address, GET.replace(b"echo", b"broken"))
    assert answer.startswith("HTTP/1.1 500 Internal Server Error\r\n")
    assert "secret" not in answer
    assert "a secret" in caplog.text


async def test_the_head_comes_without_a_body(address: Address) -> None:
    head, _, body = (await asked(address, GET.replace(b"GET", b"HEAD"))).partition("\r\n\r\n")
    assert "content-length: 1" in head
    assert "cache-control: no-store" in head
    assert body == ""


async def test_one_connection_gets_one_answer(address: Address) -> None:
    assert (await asked(address, GET * 2)).count("HTTP/1.1 ") == 1


async def test_whoever_says_nothing_is_let_go(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the request may take for ever."""
    monkeypatch.setattr(admin_http, "LIFETIME", 0.05)
    assert await asked(address, b"GET /echo HT") == ""


async def test_whoever_does_not_read_is_let_go(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when an answer may be taken for ever."""
    monkeypatch.setattr(admin_http, "LIFETIME", 0.2)
    with socket.create_connection(address) as slow:
        slow.sendall(GET.replace(b"echo", b"large"))
        assert await asked(address, b"") == ""  # it came later, and is let go later
        assert 0 < await asyncio.to_thread(received, slow) < LARGE


@pytest.mark.parametrize("said", [b"", b"GET / HT", GET.replace(b"echo", b"large")])
async def test_nobody_who_is_connected_holds_the_end_up(said: bytes) -> None:
    """Fails when `stop` waits for whoever does not ask, or does not read."""
    server = AdminHttp([Route("/large", large), Route("/echo", echo)])
    port = await server.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port), timeout=LIFETIME / 2) as slow:
        slow.sendall(said)
        await asked(("127.0.0.1", port), GET)  # the other one is being served, too
        async with asyncio.timeout(1.0):
            await server.stop()
        assert await asyncio.to_thread(received, slow) < LARGE
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("said", [b"", b"GET / HT", GET.replace(b"echo", b"large")])
async def test_those_who_are_slow_do_not_keep_a_probe_out(address: Address, said: bytes) -> None:
    """Fails when connections are not counted, or the newest is refused."""
    slow = [socket.create_connection(address) for _ in range(MOST_CONNECTIONS + 8)]
    try:
        for one in slow:
            one.sendall(said)
        async with asyncio.timeout(LIFETIME / 2):
            for _ in range(3):
                assert (await asked(address, GET)).startswith("HTTP/1.1 200")
        assert [cut_off(one) for one in slow] == [True] * 9 + [False] * (MOST_CONNECTIONS - 1)
    finally:
        for one in slow:
            one.close()
