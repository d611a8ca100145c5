"""Reads the end of the change feed, once for all readers of this replica, while there are any.

It polls: every `shortest` seconds while something happens, less and less often while nothing
does. When the database is away it keeps trying, and the readers wait: they miss nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dispatcher.tasks import cancel, happens
from server.domain.errors import DatabaseUnavailable, ShuttingDown
from server.domain.resume_tokens import CHANGE_FEED
from server.storage.change_feed import ChangeFeedStore, Poll
from server.watch.change_ring import RING_CHANGES, ChangeRing
from server.watch.waiters import Waiters

_log = logging.getLogger(__name__)

POLL_ENTRIES = 16
"""The most entries of a bucket that one poll takes in: it bounds what a poll costs."""

_SLOWER = 1.5
"""How many times longer the pause gets with each poll that finds nothing."""


class TailerFailed(Exception):
    """The tailer ended by a defect, which was logged."""


@dataclass(frozen=True, slots=True)
class Polling:
    """Seconds between two polls: while something happens, while nothing does, while the database is away."""

    shortest: float = 0.04
    longest: float = 0.25
    away: float = 1.0


class ChangeTailer:
    """The end of the change feed, behind one poll at a time. Readers are inside `reading`."""

    def __init__(self, change_feed: ChangeFeedStore, polling: Polling, ring_changes: int = RING_CHANGES) -> None:
        self._change_feed = change_feed
        self._polling = polling
        self._ring_changes = ring_changes
        self._ring: ChangeRing | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking: Waiters[ChangeRing] = Waiters()
        self._asked = asyncio.Event()
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
            self._task = asyncio.create_task(self._run(), name="change tailer")
        try:
            yield
        finally:
            self.readers -= 1
            if not self.readers:
                self._stop()

    async def fresh(self) -> ChangeRing:
        """Return the ring once a poll that began after this call has ended: it has all there was.

        Raise DatabaseUnavailable. Any number of callers at once share one poll.
        """
        if self._closed:
            raise ShuttingDown
        self._asked.set()
        return await self._asking.wait()

    async def close(self) -> None:
        """End every reader with ShuttingDown and let no other begin."""
        self._closed = True
        self._fail(ShuttingDown)
        task, self._task, self._ring = self._task, None, None
        if task is not None:
            await cancel(task)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._ring = None

    def _fail(self, failure: Callable[[], Exception]) -> None:
        if self._ring is not None:
            self._ring.fail(failure)
        self._asking.fail(failure)

    async def _run(self) -> None:
        try:
            await self._poll_on()
        except Exception:
            _log.exception("the reader of the change feed failed")
            self._fail(TailerFailed)
            self._task = self._ring = None

    async def _poll_on(self) -> None:
        pause = self._polling.shortest
        while True:
            asking, self._asking = self._asking, Waiters()
            self._asked.clear()
            try:
                poll = await self._change_feed.poll(self._ring.heads if self._ring else None, POLL_ENTRIES)
            except DatabaseUnavailable as error:
                _log.warning("the change feed cannot be read, trying again: %r", error.__cause__)
                asking.fail(DatabaseUnavailable)
                pause = self._polling.away
            except BaseException as error:
                asking.fail(TailerFailed if isinstance(error, Exception) else ShuttingDown)
                raise
            else:
                asking.answer(self._take_in(poll))
                pause = self._next_pause(pause, poll)
            await happens(self._asked, pause)

    def _next_pause(self, pause: float, poll: Poll) -> float:
        if poll.more:
            return 0.0
        if poll.entries:
            return self._polling.shortest
        return min(max(pause, self._polling.shortest) * _SLOWER, self._polling.longest)

    def _take_in(self, poll: Poll) -> ChangeRing:
        if self._ring is not None and poll.timeline != self._ring.timeline:
            # A standby took over. It may not have had everything, and have given the same numbers to other changes.
            self._ring.fail(CHANGE_FEED.lost)
            self._ring = None
        if self._ring is None:
            self._ring = ChangeRing(poll, self._ring_changes)
        else:
            self._ring.extend(poll)
        if not poll.more:
            self._complete_at = time.monotonic()
        return self._ring
