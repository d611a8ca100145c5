"""Writes receipts in batches: what arrives while one batch is written is the next one.

Who brought a receipt waits until it is in the database. While the database is away nothing is accepted, so that the
gateway tries again; nothing is kept here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dispatcher.tasks import in_background
from server.domain.errors import DatabaseUnavailable
from server.domain.receipts import Report
from server.storage.receipts import Found, ReceiptStore

log = logging.getLogger(__name__)

MOST_AT_ONCE = 2000
"""The most reports of one batch."""

MOST_WAITING = 20_000
"""Reports that may wait; more are turned away."""

MATCH_INTERVAL = 1.0
"""Seconds between two looks for kept reports whose message is known by now."""

FORGET_EVERY = 600
"""So many looks later, kept reports that are too old are removed."""


class Overloaded(Exception):
    """More reports wait than can be held."""


class ReceiptWriter:
    """Records reports, many requests' together."""

    def __init__(self, store: ReceiptStore) -> None:
        self._store = store
        self._waiting: list[tuple[Sequence[Report], asyncio.Future[Found]]] = []
        self._held = 0
        self._woken = asyncio.Event()

    async def record(self, reports: Sequence[Report]) -> Found:
        """Record reports and return those whose message is known. Raise Overloaded and DatabaseUnavailable."""
        if self._held + len(reports) > MOST_WAITING:
            raise Overloaded
        recorded: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((reports, recorded))
        self._held += len(reports)
        self._woken.set()
        return await recorded

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write, and match what is kept, inside the block."""
        async with in_background(self._write(), "receipts"), in_background(self._match(), "kept receipts"):
            yield

    async def _write(self) -> None:
        while True:
            await self._woken.wait()
            batch = self._take()
            if not self._waiting:
                self._woken.clear()
            try:
                found = await self._store.record([report for reports, _ in batch for report in reports])
            except Exception as error:
                if not isinstance(error, DatabaseUnavailable):
                    log.exception("receipts could not be recorded")
                _end(batch, error)
            else:
                _end(batch, found)

    def _take(self) -> list[tuple[Sequence[Report], asyncio.Future[Found]]]:
        taken, count = 0, 0
        while taken < len(self._waiting) and (not taken or count + len(self._waiting[taken][0]) <= MOST_AT_ONCE):
            count += len(self._waiting[taken][0])
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._held -= count
        return batch

    async def _match(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(MATCH_INTERVAL)
            looks += 1
            try:
                await self._store.match_held()
                if looks % FORGET_EVERY == 1:
                    await self._store.forget_held()
            except DatabaseUnavailable:
                continue


def _end(batch: Sequence[tuple[Sequence[Report], asyncio.Future[Found]]], outcome: Found | Exception) -> None:
    for _, recorded in batch:
        if recorded.done():  # who brought it is gone
            continue
        if isinstance(outcome, Exception):
            recorded.set_exception(outcome)
        else:
            recorded.set_result(outcome)
