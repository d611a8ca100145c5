"""A console on a real API on a real database, and stubs to set the scene."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest

from dispatcher.model.endpoints import Endpoint
from server.config.types import ConfiguredEndpoint
from tests.support.api import serving
from tests.support.console import Browser, console_of


@pytest.fixture
async def address(pool: asyncpg.Pool) -> AsyncIterator[str]:
    """Yield the address of an API that asks nobody for credentials."""
    endpoint = ConfiguredEndpoint(Endpoint("default", "http://127.0.0.1:9/", ""), "fast", "test")
    async with serving(pool, endpoints=[endpoint]) as (_, address):
        yield address


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


@pytest.fixture
async def browser(address: str) -> AsyncIterator[Browser]:
    async with console_of(address) as browser:
        yield browser
