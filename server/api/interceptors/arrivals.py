"""Bounds what requests hold that have not arrived in full, from their first byte.

gRPC collects a message until its last byte, however long that takes, and only then hands it over. So
reading one takes a place, of which there are few: what is not being read stays within its stream's
window (`TransportSettings.window_bytes`). A request that is there already occupies its place for
microseconds. Places are given out in turn among the sources, which are principals or hosts, and a
reader that holds one for long while others wait is displaced.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from server.domain.errors import BodyTooSlow, TooManyWaiting

Read = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """How many requests may be arriving at once on a replica, and for how long. Times are seconds."""

    places: int = 8
    """Requests that are read at once; each may hold up to the size that gRPC itself accepts."""
    places_per_source: int = 3
    waiting: int = 512
    """Requests that wait for a place."""
    waiting_per_source: int = 256
    patience: float = 0.1
    """How long a reader keeps its place while others wait for one."""
    longest: float = 20.0
    """How long a request may take to arrive when nobody waits."""


class Arrivals:
    """Gives out the places."""

    def __init__(self, limits: ArrivalLimits) -> None:
        self._limits = limits
        self._readers: dict[_Reader, None] = {}  # the oldest first
        self._reading: Counter[str] = Counter()
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # the source whose turn it is first
        self._taken = 0
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, source: str, read: Read) -> bytes:
        """Return what `read` returns. Raise TooManyWaiting and BodyTooSlow."""
        if self._queues or not self._has_place(source):
            await self._turn(source)
        else:
            self._take(source)
        reader = _Reader(source)
        self._readers[reader] = None
        if self._timer is None:
            self._schedule(reader.loop)
        try:
            return await read()
        except asyncio.CancelledError:
            if reader.displaced and reader.task.uncancel() == 0:
                raise BodyTooSlow from None
            raise
        finally:
            del self._readers[reader]
            self._leave(source)

    def _has_place(self, source: str) -> bool:
        return self._taken < self._limits.places and self._reading[source] < self._limits.places_per_source

    async def _turn(self, source: str) -> None:
        """Return with a place taken."""
        queue = self._queues.get(source) or deque()
        if self._waiting >= self._limits.waiting or len(queue) >= self._limits.waiting_per_source:
            raise TooManyWaiting("requests that have not arrived", len(queue))
        self._queues[source] = queue
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        queue.append(turn)
        self._waiting += 1
        self._schedule(loop)
        self._call_next()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # called, and cancelled before it went on
                self._leave(source)
            raise

    def _take(self, source: str) -> None:
        self._taken += 1
        self._reading[source] += 1

    def _leave(self, source: str) -> None:
        self._taken -= 1
        self._reading[source] -= 1
        if not self._reading[source]:
            del self._reading[source]
        if self._queues:
            self._call_next()

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
                    self._take(source)
                    turn.set_result(None)
                    break
            if queue:
                self._queues[source] = queue  # behind the others

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(self._limits.patience / 2 if self._queues else 1.0, self._displace, loop)

    def _displace(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the readers that have taken too long, and look again as long as there are any."""
        self._timer = None
        now = loop.time()
        for reader in [one for one in self._readers if now - one.since > self._limits.longest]:
            reader.displace()
        for source, queue in self._queues.items():
            full = self._reading[source] >= self._limits.places_per_source
            mostly = source if full else max(self._reading, key=self._reading.__getitem__, default=source)
            overdue = [one for one in self._readers if one.source == mostly and now - one.since > self._limits.patience]
            for reader in overdue[: len(queue)]:
                reader.displace()
        if self._readers or self._queues:
            self._schedule(loop)


class _Reader:
    """One request that is being read."""

    __slots__ = ("displaced", "loop", "since", "source", "task")

    def __init__(self, source: str) -> None:
        task = asyncio.current_task()
        assert task is not None, "calls are served by tasks"
        self.source = source
        self.task = task
        self.loop = task.get_loop()
        self.since = self.loop.time()
        self.displaced = False

    def displace(self) -> None:
        """End the reading, once."""
        if not self.displaced:
            self.displaced = True
            self.task.cancel()
