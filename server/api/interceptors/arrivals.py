"""Bounds what requests hold that have not arrived in full, from their first byte.

gRPC collects a message until its last byte, however long that takes, and only then hands it over. So
reading one takes a place, of which there are few: what is not being read stays within its stream's
window (`TransportSettings.window_bytes`). A request that is there already occupies its place for
microseconds. A reader that holds one for long while others wait is displaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from server.domain.errors import BodyTooSlow
from server.domain.turns import Turns

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
    """Reads requests, a few at a time."""

    def __init__(self, limits: ArrivalLimits) -> None:
        self._limits = limits
        self._turns = Turns(
            "requests that have not arrived",
            limits.places,
            limits.places_per_source,
            limits.waiting,
            limits.waiting_per_source,
        )
        self._readers: dict[_Reader, None] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = False

    async def read(self, source: str, read: Read) -> bytes:
        """Return what `read` returns. Raise TooManyWaiting and BodyTooSlow."""
        if not self._turns.take_at_once(source):
            self._hurry()
            await self._turns.take(source)
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
            self._turns.leave(source)

    def _hurry(self) -> None:
        """Look soon, since somebody waits."""
        if not self._hurried:
            self._hurried = True
            self._schedule(asyncio.get_running_loop())

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(self._limits.patience / 2 if self._hurried else 1.0, self._displace, loop)

    def _displace(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the readers that have taken too long, and look again as long as there are any."""
        self._timer = None
        now, waiting = loop.time(), self._turns.waiting
        self._hurried = bool(waiting)
        for reader in [one for one in self._readers if now - one.since > self._limits.longest]:
            reader.displace()
        for source, queue in waiting.items():
            held_by = source if self._turns.is_full(source) else self._turns.greediest(source)
            slow = [one for one in self._readers if one.source == held_by and now - one.since > self._limits.patience]
            for reader in slow[: len(queue)]:
                reader.displace()
        if self._readers or waiting:
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
