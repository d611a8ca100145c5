"""Servers that ask who calls, on a real database, and calls to them by all sorts of callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from prometheus_client import CollectorRegistry

from server.api import RpcSettings, build_server
from server.auth import Authenticator
from server.auth.tokens_file import TokensFile, new_token, token_line
from server.endpoints.probes import EndpointProbes

Start = Callable[..., Awaitable["Guarded"]]


@dataclass
class Guarded:
    """A running server."""

    port: int
    channel: grpc.aio.Channel


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


class Tokens:
    """A tokens file, written as tokens are made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def make(self, name: str, *scopes: str) -> list[tuple[str, str]]:
        """Add a caller and return the metadata of their calls."""
        token = new_token()
        with self.path.open("a") as file:
            file.write(f"{token_line(name, token, scopes)}\n")
        return bearer(token)

    def authenticator(self, **more: Any) -> Authenticator:
        return Authenticator(TokensFile(self.path), **more)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens")


@pytest.fixture
async def start(pool: asyncpg.Pool) -> AsyncIterator[Start]:
    """Start servers; keyword arguments are fields of RpcSettings."""
    async with AsyncExitStack() as stack:

        async def begin(probes: EndpointProbes | None = None, **settings: Any) -> Guarded:
            rpc = RpcSettings(acquire_timeout=2.0, **settings)
            server = await build_server(pool, lambda: None, CollectorRegistry(), rpc, probes)
            port = server.bind("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
            return Guarded(port, channel)

        yield begin
