"""Dispatchers on a real database, with a scripted endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.settings import DispatchSettings, FrequencyCap
from dispatcher.ports import DayQuotaStore, RateSlotStore, Sender, WorkQueue
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage

SETTINGS = DispatchSettings(poll_max=0.2, recheck_min=0.1, recheck_max=0.5)
ENDPOINT = Endpoint("default", "http://127.0.0.1:1/", "token", total_timeout=2.0)

Start = Callable[..., Dispatcher]


@pytest.fixture
async def start(pool: asyncpg.Pool) -> AsyncIterator[Start]:
    """Start dispatchers that are stopped when the test ends."""
    running: list[tuple[Dispatcher, asyncio.Task[None]]] = []

    def begin(
        sender: Sender,
        cap: FrequencyCap | None = None,
        queue: WorkQueue | None = None,
        rates: RateSlotStore | None = None,
        quotas: DayQuotaStore | None = None,
        endpoint: Endpoint = ENDPOINT,
        **settings: float,
    ) -> Dispatcher:
        storage = dispatcher_storage(DispatcherDatabase(pool), uuid4(), cap)
        dispatcher = Dispatcher(
            replace(
                storage,
                queue=queue or storage.queue,
                rates=rates or storage.rates,
                quotas=quotas or storage.quotas,
            ),
            [(endpoint, sender)],
            replace(SETTINGS, **settings),  # type: ignore[arg-type]
        )
        running.append((dispatcher, asyncio.create_task(dispatcher.run())))
        return dispatcher

    yield begin
    for dispatcher, task in running:
        await dispatcher.stop(grace=5.0)
        await task
