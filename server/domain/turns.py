"""Turns for something scarce, fair among the sources of those who want it.

A source is what calls come from: a principal, or a host without authentication. Each has at most its share of
the places at once, and those who wait are called in turn of their sources, however many each has waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from server.domain.errors import TooManyWaiting


class Turns:
    """So many `places`, of which one source has at most `share`, and so many may wait. `what` names them, a plural."""

    def __init__(self, what: str, places: int, share: int, waiting: int = 512, waiting_share: int = 256) -> None:
        self._what = what
        self._places = places
        self._share = share
        self._most_waiting = waiting
        self._waiting_share = waiting_share
        self._held: dict[str, int] = {}  # by source, none for those that hold nothing
        self._taken = 0
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # the source whose turn it is first
        self._waiting = 0

    @property
    def waiting(self) -> Mapping[str, deque[asyncio.Future[None]]]:
        """Who waits, by source; cancelled ones may still be among them."""
        return self._queues

    @asynccontextmanager
    async def turn(self, source: str, patience: float | None = None) -> AsyncIterator[None]:
        """Hold a place inside the block. Raise TooManyWaiting, also after `patience` seconds without one."""
        await self.take(source, patience)
        try:
            yield
        finally:
            self.leave(source)

    async def take(self, source: str, patience: float | None = None) -> None:
        """Take a place, of which `leave` is to be called. Raise TooManyWaiting."""
        if self.take_at_once(source):
            return
        try:
            async with asyncio.timeout(patience):
                await self._called(source)
        except TimeoutError:
            raise TooManyWaiting(self._what, self._places) from None

    def take_at_once(self, source: str) -> bool:
        """Take a place if that needs no waiting, and return whether it was taken."""
        if self._queues or not self._has_place(source):
            return False
        self._give(source)
        return True

    def leave(self, source: str) -> None:
        """Give a place back, to the next that waits."""
        self._taken -= 1
        if left := self._held[source] - 1:
            self._held[source] = left
        else:
            del self._held[source]
        if self._queues:
            self._call_next()

    def is_full(self, source: str) -> bool:
        """Return whether a source has its share."""
        return self._held.get(source, 0) >= self._share

    def greediest(self, default: str) -> str:
        """Return the source that holds most."""
        return max(self._held, key=self._held.__getitem__, default=default)

    def _has_place(self, source: str) -> bool:
        return self._taken < self._places and self._held.get(source, 0) < self._share

    def _give(self, source: str) -> None:
        self._taken += 1
        self._held[source] = self._held.get(source, 0) + 1

    async def _called(self, source: str) -> None:
        queue = self._queues.get(source) or deque()
        if self._waiting >= self._most_waiting or len(queue) >= self._waiting_share:
            raise TooManyWaiting(self._what, self._places)
        self._queues[source] = queue
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._waiting += 1
        self._call_next()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # called, and cancelled before it went on
                self.leave(source)
            raise

    def _call_next(self) -> None:
        """Give free places to the sources in turn."""
        for source in [*self._queues]:
            if not self._has_place(source):
                continue
            queue = self._queues.pop(source)
            while queue:
                turn = queue.popleft()
                self._waiting -= 1
                if not turn.cancelled():
                    self._give(source)
                    turn.set_result(None)
                    break
            if queue:
                self._queues[source] = queue  # behind the others
