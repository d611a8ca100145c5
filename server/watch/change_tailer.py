"""Reads the journal's end, once for all readers of this replica, while there are any.

It polls: as often as `shortest` while something happens, less and less while nothing does.
When the database is away it goes on trying, and the readers wait: they miss nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from server.domain.errors import DatabaseUnavailable, ResumeTokenExpired, ShuttingDown
from server.storage.change_feed import ChangeFeedStore, News
from server.watch.change_ring import RING_CHANGES, Ring

_log = logging.getLogger(__name__)

POLL_ENTRIES = 16
"""The most entries of a bucket that one poll takes in: it bounds what a poll costs."""


class TailerFailed(Exception):
    """The tailer ended by a defect, which was logged."""


@dataclass(frozen=True, slots=True)
class Polling:
    """Seconds between two polls: while something happens, while nothing does, while the database is away."""

    shortest: float = 0.04
    longest: float = 0.25
    away: float = 1.0


class Tailer:
    """The journal's end, behind one poll at a time. Readers are inside `reading`."""

    def __init__(self, change_feed: ChangeFeedStore, polling: Polling, ring_changes: int = RING_CHANGES) -> None:
        self._change_feed = change_feed
        self._polling = polling
        self._ring_changes = ring_changes
        self._ring: Ring | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking: list[asyncio.Future[Ring]] = []
        self._nudge = asyncio.Event()
        self._closed = False
        self._complete_at = 0.0
        self.readers = 0

    @property
    def lag(self) -> float:
        """Seconds since it last had everything there was; 0 without readers."""
        return time.monotonic() - self._complete_at if self.readers else 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the tailer running inside the block. Raise ShuttingDown once closed."""
        if self._closed:
            raise ShuttingDown
        self.readers += 1
        if self._task is None:
            self._complete_at = time.monotonic()
            self._task = asyncio.create_task(self._run(), name="journal tailer")
        try:
            yield
        finally:
            self.readers -= 1
            if not self.readers:
                self._stop()

    async def fresh(self) -> Ring:
        """Return the ring once a poll that began after this call has ended: it has all there was.

        Raise DatabaseUnavailable. Any number of callers at once share one poll.
        """
        if self._closed:
            raise ShuttingDown
        asked: asyncio.Future[Ring] = asyncio.get_running_loop().create_future()
        self._asking.append(asked)
        self._nudge.set()
        return await asked

    async def close(self) -> None:
        """End every reader with ShuttingDown and let no other begin."""
        self._closed = True
        self._fail(ShuttingDown)
        task = self._task
        self._stop()
        if task is not None:
            with suppress(asyncio.CancelledError):
                await task

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._ring = None

    def _fail(self, failure: Callable[[], Exception]) -> None:
        if self._ring is not None:
            self._ring.fail(failure)
        asked, self._asking = self._asking, []
        _refuse(asked, failure)

    async def _run(self) -> None:
        try:
            await self._poll_on()
        except Exception:
            _log.exception("the journal tailer failed")
            self._fail(TailerFailed)
            self._task = self._ring = None

    async def _poll_on(self) -> None:
        pause = self._polling.shortest
        while True:
            asked, self._asking = self._asking, []
            self._nudge.clear()
            try:
                news = await self._change_feed.poll(self._ring.heads if self._ring else None, POLL_ENTRIES)
            except DatabaseUnavailable as error:
                _log.warning("the journal cannot be read, trying again: %r", error.__cause__)
                _refuse(asked, DatabaseUnavailable)
                pause = self._polling.away
            except BaseException as error:
                _refuse(asked, TailerFailed if isinstance(error, Exception) else ShuttingDown)
                raise
            else:
                pause = self._next_pause(pause, news)
                ring = self._take_in(news)
                if not news.more:
                    self._complete_at = time.monotonic()
                for future in asked:
                    if not future.done():
                        future.set_result(ring)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), pause)

    def _next_pause(self, pause: float, news: News) -> float:
        if news.more:
            return 0.0
        if news.entries:
            return self._polling.shortest
        return min(max(pause, self._polling.shortest) * 1.5, self._polling.longest)

    def _take_in(self, news: News) -> Ring:
        if self._ring is not None and any(now < then for now, then in zip(news.heads, self._ring.heads, strict=True)):
            # The database went back in time: a standby took over that did not have everything.
            self._ring.fail(lambda: ResumeTokenExpired("names changes that the database has lost"))
            self._ring = None
        if self._ring is None:
            self._ring = Ring(news, self._ring_changes)
        else:
            self._ring.extend(news)
        return self._ring


def _refuse(asked: list[asyncio.Future[Ring]], failure: Callable[[], Exception]) -> None:
    for future in asked:
        if not future.done():
            future.set_exception(failure())
