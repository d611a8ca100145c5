"""The receipts listener itself: TLS that follows its files, and callers who do not behave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.receipts import listener
from server.receipts.listener import ReceiptsListener
from tests.support.eventually import eventually
from tests.support.tls import TlsFolder


async def fine(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """An application that reads a body and answers 200."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def listening(certificate: tuple[Path, Path] | None = None) -> AsyncIterator[int]:
    made = ReceiptsListener(fine, certificate)
    port = await made.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await made.stop()


async def asked(port: int, data: bytes) -> bytes:
    """Send bytes and return all that comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_tls_follows_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when the certificate is read once, and when a bad one ends the service."""
    monkeypatch.setattr(listener, "TLS_CHECK", 0.02)
    tls = TlsFolder(tmp_path)
    async with listening((tls.files.certificate, tls.files.key)) as port:
        context = ssl.create_default_context(cafile=str(tls.ca_file))
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            assert (await client.post(f"https://localhost:{port}/")).status_code == 200
        _, first = await asyncio.to_thread(tls.handshake, port)
        tls.renew()
        await eventually(lambda: asyncio.to_thread(tls.handshake, port), lambda found: found[1] != first)
        _, second = await asyncio.to_thread(tls.handshake, port)
        tls.files.certificate.write_text("nonsense")
        await eventually(lambda: "stays in force" in caplog.text, bool)
        assert (await asyncio.to_thread(tls.handshake, port))[1] == second


async def test_slow_and_endless_requests_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a request may take for ever, or be of any size."""
    monkeypatch.setattr(listener, "PATIENCE", 0.3)
    async with listening() as port:
        async with asyncio.timeout(5):
            assert await asked(port, b"") == b""
            assert await asked(port, b"POST / HTTP/1.1\r\nHost: x\r\n") == b""
            assert await asked(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab") == b""
            assert await asked(port, b"POST / HTTP/1.1\r\nX: " + b"x" * 200_000) == b""
            assert b"400" in await asked(port, b"nonsense\r\n\r\n")


async def test_one_connection_too_many_costs_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MOST_CONNECTIONS", 2)
    async with listening() as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        request = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        assert b" 200 " in await asked(port, request)
        async with asyncio.timeout(5):
            assert await idle[0][0].read() == b""
        for _, writer in idle:
            writer.close()
