"""Where the admin port is when nobody says where: at its place if that is free, and otherwise not at all."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.heartbeat import CANNOT_RECORD
from dispatcher.recording import PATIENCE
from server.config import Settings
from server.observability import admin_port as operation
from server.observability.admin_port import AdminSources, CannotOpenAdmin, open_admin
from server.observability.health import DatabaseWatch
from server.observability.metrics.backlog import BacklogGauges
from server.storage.database import Database
from server.storage.reports import BacklogStore
from server.storage.schema_watch import NEWER_SCHEMA
from tests.support.scrape import get


async def nobody(_: bool) -> None:
    pass


@pytest.fixture
def sources(pool: asyncpg.Pool) -> AdminSources:
    return AdminSources(DatabaseWatch(Database(pool), nobody), asyncio.Event(), [], CollectorRegistry())


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_a_second_process_does_without(
    sources: AdminSources, taken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(operation, "DEFAULT_ADMIN_LISTEN", taken)
    with caplog.at_level(logging.WARNING):
        async with open_admin(Settings(), sources):
            pass
    assert f"Cannot listen on {taken} (MAILING_ADMIN_LISTEN): " in caplog.text
    assert "There are no metrics of this process" in caplog.text


async def test_an_address_that_is_set_is_not_done_without(sources: AdminSources, taken: str) -> None:
    with pytest.raises(CannotOpenAdmin, match=taken):
        async with open_admin(Settings(admin_listen=taken), sources):
            raise AssertionError("it opened")


async def test_one_that_is_being_stopped_says_so(
    sources: AdminSources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with open_admin(Settings(admin_listen="127.0.0.1:0"), sources):
            address = caplog.text.rpartition("http://")[2].strip()
            assert (await asyncio.to_thread(get, address, "/readyz")).status == 200
            sources.stopped.set()
            assert (await asyncio.to_thread(get, address, "/readyz"))[::2] == (503, "stopping\n")
            assert (await asyncio.to_thread(get, address, "/healthz")).status == 200


@pytest.mark.parametrize("alone", [True, False], ids=["dispatcher alone", "beside the API"])
@pytest.mark.parametrize(
    ("metric", "bad", "why"),
    [
        ("mailing_dispatcher_unrecorded_seconds", PATIENCE, CANNOT_RECORD),
        ("mailing_dispatcher_newer_schema", True, NEWER_SCHEMA),
    ],
)
async def test_a_dispatcher_that_claims_nothing_says_why(
    pool: asyncpg.Pool,
    sources: AdminSources,
    caplog: pytest.LogCaptureFixture,
    alone: bool,
    metric: str,
    bad: float,
    why: str,
) -> None:
    value = 0.0
    sources = replace(
        sources,
        metrics=[lambda: {metric: {("0",): value}}],
        backlog=None if alone else BacklogGauges(BacklogStore(Database(pool)).read, ["default"]),
    )
    with caplog.at_level(logging.INFO):
        async with open_admin(Settings(admin_listen="127.0.0.1:0"), sources):
            address = caplog.text.rpartition("http://")[2].strip()
            assert (await asyncio.to_thread(get, address, "/readyz"))[::2] == (200, "ready\n")
            value = bad
            told = (503, f"{why}\n") if alone else (200, f"ready, but {why}\n")
            assert (await asyncio.to_thread(get, address, "/readyz"))[::2] == told
