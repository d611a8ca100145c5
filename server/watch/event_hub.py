"""Streams the event log: first what is kept, then what is written, to any number of readers.

A reader is a position per bucket and holds a single page. While nothing is written all of them
together ask for the ends of the log a few times a second, and nobody does without readers.
Readers of the same query at the same positions share their reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from dispatcher.tasks import CachedRead, SingleFlight, happens
from server.domain.errors import DatabaseUnavailable, ShuttingDown
from server.domain.events import BucketPage, EventQuery, RecordedEvent, in_order
from server.domain.resume_tokens import EVENT_LOG, Positions, Tokens
from server.storage.events import EventStore

_log = logging.getLogger(__name__)

POLL_PAUSE = 0.25
"""Seconds between two polls of the ends of the log."""

AWAY_PAUSE = 1.0
"""Seconds between two tries while the database is away."""

CHECKPOINT = 5.0
"""Seconds after which a reader gets its new position, though no matching entry was written."""

READS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Entries to send together, none in a checkpoint: with them all up to `positions` of a timeline is sent."""

    entries: Sequence[RecordedEvent]
    positions: Positions
    timeline: int


class EventHub:
    """The readers of the event log on one replica."""

    def __init__(self, events: EventStore) -> None:
        self._ends = CachedRead(events.ends, "event log ends")
        self._read = SingleFlight(events.read, "event page", at_once=READS_AT_ONCE)
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End every reader with ShuttingDown and let no other begin."""
        self._closed.set()

    async def batches(self, query: EventQuery, tokens: Tokens, token: str) -> AsyncGenerator[EventBatch, None]:
        """Yield what is behind `token` or, without one, from the oldest entry kept.

        A checkpoint follows when all that was written before has been sent. Raise
        InvalidResumeToken, ResumeTokenExpired, ShuttingDown, and DatabaseUnavailable where
        the first page cannot be read.
        """
        timeline, _, floors = await self._ends.get(0.0)
        positions = tokens.decode(token, timeline) if token else floors
        checkpoint: Positions | None = None
        began, sent_at = False, 0.0
        while not self._closed.is_set():
            try:
                pages = await self._read(query, positions)
                began = True
            except DatabaseUnavailable as error:
                if not began:
                    raise
                _log.warning("the event log cannot be read, trying again: %r", error.__cause__)
                await happens(self._closed, AWAY_PAUSE)
                continue
            _check(pages)
            entries, positions = in_order(pages)
            now = asyncio.get_running_loop().time()
            if entries:
                yield EventBatch(entries, positions, timeline)
                sent_at = now
            if not any(page.more for page in pages):
                if checkpoint is None or (positions != checkpoint and now - sent_at >= CHECKPOINT):
                    yield EventBatch((), positions, timeline)
                    checkpoint, sent_at = positions, now
                await self._written(positions, timeline)
        raise ShuttingDown

    async def _written(self, positions: Positions, timeline: int) -> None:
        """Return when something is written behind `positions`, or the hub is closed.

        Raise ResumeTokenExpired when a standby has taken over: what it did not have is lost.
        """
        while not await happens(self._closed, POLL_PAUSE):
            try:
                now, heads, _ = await self._ends.get(POLL_PAUSE / 2)
            except DatabaseUnavailable:
                await happens(self._closed, AWAY_PAUSE)
            else:
                if now != timeline:
                    raise EVENT_LOG.lost()
                if heads != positions:
                    return


def _check(pages: Sequence[BucketPage]) -> None:
    """Raise ResumeTokenExpired where entries behind a position are gone, or not yet written again."""
    EVENT_LOG.check(*zip(*((page.after, page.floor, page.head) for page in pages), strict=True))
