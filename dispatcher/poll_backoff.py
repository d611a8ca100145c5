"""Adaptive polling: decides how long an idle dispatcher sleeps.

The wait is the time to the next due thing or a back-off that doubles while nothing is found,
whichever is shorter. Work resets the back-off, a hint ends the wait; nothing depends on
hints.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from dispatcher import retry_policy as policy
from dispatcher.ports import Clock
from dispatcher.tasks import happens

_GOES_ON: int | None = getattr(time, "CLOCK_BOOTTIME", None)
"""A monotonic clock that does not stand still while the machine is suspended, where there is one."""


class LoopClock:
    """The real clock.

    `monotonic` returns the seconds of a monotonic clock: a machine that wakes up knows that its
    leases ran out meanwhile. It is read several times per message, and so no method of ours.
    """

    def __init__(self) -> None:
        self.monotonic: Callable[[], float] = (
            time.monotonic if _GOES_ON is None else partial(time.clock_gettime, _GOES_ON)
        )

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when the event is set or after so many seconds."""
        await happens(event, seconds)


class PollBackoff:
    """One for all: every loop that finds nothing waits here. Times are seconds."""

    def __init__(self, clock: Clock, poll_min: float, poll_max: float) -> None:
        self.poll_min = poll_min
        self.poll_max = poll_max
        self.interval = poll_min
        self.reason = "started"
        self._clock = clock
        self._backoff = poll_min
        self._hinted = asyncio.Event()

    def bound(self, poll_min: float, poll_max: float) -> None:
        """Set other bounds, which hold at once."""
        self.poll_min, self.poll_max = poll_min, poll_max
        self.reset()
        self.hint()

    def hint(self) -> None:
        """End the present wait, or the next one before it begins."""
        self._hinted.set()

    def reset(self) -> None:
        """Begin the back-off anew: there was work."""
        self._backoff = self.poll_min

    async def wait(self, next_in: float | None) -> bool:
        """Wait until the next poll and return whether a hint ended the wait.

        `next_in` is the time to the next due thing, None when nothing is scheduled.
        """
        self.interval = policy.idle_wait(next_in, self._backoff, self.poll_min, self.poll_max)
        self.reason = "next due" if next_in is not None and next_in <= self._backoff else "backed off"
        await self._clock.wait(self._hinted, self.interval)
        hinted = self._hinted.is_set()
        self._hinted.clear()
        self._backoff = self.poll_min if hinted else min(self._backoff * 2, self.poll_max)
        return hinted
