"""Hands the log on: what is kept, then what is written, to any number of readers.

A reader is a position per bucket and holds a single page. While nothing is written all of
them together ask for the ends of the log a few times a second, and nobody does without
readers. Readers of the same that stand at the same place read together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from server.domain.change_feed import Positions, Tokens
from server.domain.errors import DatabaseUnavailable, ResumeTokenExpired, ShuttingDown
from server.domain.events import BucketPage, EventQuery, RecordedEvent, in_order
from server.storage.events import EventStore
from server.watch.single_flight import SingleFlight, heard

_log = logging.getLogger(__name__)

POLL = 0.25
"""Seconds between two looks at the ends of the log."""

AWAY_PAUSE = 1.0
"""Seconds between two tries while the database is away."""

CHECKPOINT = 5.0
"""How often a reader is told at least that it stands further on, in seconds, though nothing it chose was written."""

_READING = 2
_FORGOTTEN = "is older than the log that is kept"
_LOST = "names entries that the database has lost"


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Entries to hand on together, none in a checkpoint: there all is told up to `positions`."""

    entries: Sequence[RecordedEvent]
    positions: Positions


class EventHub:
    """The log's readers of one replica."""

    def __init__(self, log: EventStore) -> None:
        self._store = log
        self._ends = SingleFlight(log.ends)
        self._pages: dict[tuple[EventQuery, Positions], asyncio.Task[list[BucketPage]]] = {}
        self._room = asyncio.Semaphore(_READING)
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End every reader with ShuttingDown and let no other begin."""
        self._closed.set()

    async def batches(self, query: EventQuery, tokens: Tokens, token: str) -> AsyncGenerator[EventBatch, None]:
        """Yield what is behind `token` or, without one, from the oldest entry kept.

        A checkpoint comes when all that was written before is handed on. Raise
        InvalidResumeToken, ResumeTokenExpired, ShuttingDown, and DatabaseUnavailable where
        the first page cannot be read.
        """
        positions = tokens.decode(token) if token else (await self._ends.get(0.0))[1]
        told: Positions | None = None
        began, told_at = False, 0.0
        while not self._closed.is_set():
            try:
                pages = await self._read(query, positions)
                began = True
            except DatabaseUnavailable as error:
                if not began:
                    raise
                _log.warning("the log cannot be read, trying again: %r", error.__cause__)
                await self._pause(AWAY_PAUSE)
                continue
            _check(pages)
            entries, positions = in_order(pages)
            now = asyncio.get_running_loop().time()
            if entries:
                yield EventBatch(entries, positions)
                told_at = now
            if not any(page.more for page in pages):
                if told is None or (positions != told and now - told_at >= CHECKPOINT):
                    yield EventBatch((), positions)
                    told, told_at = positions, now
                await self._written(positions)
        raise ShuttingDown

    async def _read(self, query: EventQuery, positions: Positions) -> list[BucketPage]:
        """Read behind `positions`, together with whoever wants the same at this moment."""
        key = (query, positions)
        task = self._pages.get(key)
        if task is None:
            task = self._pages[key] = asyncio.create_task(self._page(query, positions), name="log page")
            task.add_done_callback(heard)
        return await asyncio.shield(task)  # others may wait for it, too

    async def _page(self, query: EventQuery, positions: Positions) -> list[BucketPage]:
        try:
            async with self._room:
                return await self._store.read(query, positions)
        finally:
            del self._pages[query, positions]

    async def _written(self, positions: Positions) -> None:
        """Return when something is written behind `positions`, or the hub is closed."""
        while not self._closed.is_set():
            await self._pause(POLL)
            try:
                heads, _ = await self._ends.get(POLL / 2)
            except DatabaseUnavailable:
                await self._pause(AWAY_PAUSE)
                continue
            if heads != positions:
                return

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)


def _check(pages: Sequence[BucketPage]) -> None:
    """Raise ResumeTokenExpired where something behind a position is not there any more, or not yet again."""
    if any(page.after < page.floor for page in pages):
        raise ResumeTokenExpired(_FORGOTTEN)
    if any(page.after > page.head for page in pages):
        raise ResumeTokenExpired(_LOST)
