"""Time that nobody waits for: a world of events, and an asyncio loop for each process in it.

The world owns the time, which jumps to whatever happens next. Each replica runs on a loop of
its own, as a process would: a crashed one is never run again, whatever its tasks were about to
do, and a frozen one misses everything until it thaws. Processes meet only through events of the
world, which take time; all that is random comes from the world's one generator, so a seed is the
whole story.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVarTuple

from dispatcher.poll_backoff import LoopClock

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The database's time when a world begins."""

_ASK_EVERY = 0.25
_Ts = TypeVarTuple("_Ts")

_Event = tuple[float, int, Callable[[], None]]


class World:
    """Everything that happens; `now` is in seconds from its beginning."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.trace: list[str] = []
        self.loops: list[ProcessLoop] = []
        self.clocks = [(0.0, timedelta())]
        """How far the database's clock is ahead, each since a moment: it is set now and then."""
        self._events: list[_Event] = []
        self._number = 0

    @property
    def now_at(self) -> datetime:
        """The time by the database's clock."""
        return at(self.now) + self.clocks[-1][1]

    @property
    def true_at(self) -> datetime:
        """The time by a clock that nobody sets."""
        return at(self.now)

    @property
    def is_set(self) -> bool:
        """Whether the database's clock was set."""
        return len(self.clocks) > 1

    def set_clock(self, seconds: float) -> None:
        """Set the database's clock forward, or back."""
        self.tell("the database's clock is set by", seconds)
        self.clocks.append((self.now, self.clocks[-1][1] + timedelta(seconds=round(seconds, 6))))

    def clocks_since(self, since: float, until: float | None = None) -> list[timedelta]:
        """Return how far the database's clock was ahead between two moments, now by itself."""
        ends = [begin for begin, _ in self.clocks[1:]] + [self.now]
        until = self.now if until is None else until
        return [
            ahead
            for (begin, ahead), end in zip(self.clocks, ends, strict=True)
            if begin <= until and (end > since or end == self.now)
        ]

    def tell(self, *words: object) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{self.now:10.6f} {' '.join(map(str, words))}")

    def delay(self, least: float, most: float) -> float:
        """Draw a span, small ones far more often than large ones."""
        return least + (most - least) * self.random.random() ** 3

    def chance(self, probability: float) -> bool:
        """Draw a yes with this probability."""
        return self.random.random() < probability

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let something happen so many seconds from now."""
        self._number += 1
        heapq.heappush(self._events, (round(self.now + seconds, 6), self._number, event))

    def run(self, until: float, done: Callable[[], bool] | None = None) -> None:
        """Let time pass until that moment, or until `done`, asked from time to time, says so."""
        asked, events, loops = self.now, self._events, self.loops
        while True:
            moment = events[0][0] if events else math.inf
            for loop in loops:
                moment = min(moment, loop.next_at())
            if moment > until:
                return
            if done is not None and moment > asked + _ASK_EVERY:
                asked = moment
                if done():
                    return
            if moment > self.now:
                self.now = moment
            while events and events[0][0] <= moment:
                heapq.heappop(events)[2]()
            for loop in list(loops):
                loop.run_ready()


def at(seconds: float) -> datetime:
    """Return the time by the database's clock, so many seconds from the beginning."""
    return EPOCH + timedelta(microseconds=round(seconds * 1_000_000))


class ProcessLoop(asyncio.AbstractEventLoop):
    """The loop of one process: as much of asyncio as the dispatcher uses.

    `errors` holds what tasks and callbacks raised with nobody to take it.
    """

    def __init__(self, world: World) -> None:
        self.errors: list[str] = []
        self.frozen_until = 0.0
        self._world = world
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = 0
        self._dead = False
        world.loops.append(self)

    def kill(self) -> None:
        """End the process without any notice: nothing of it ever runs again."""
        self._dead = True
        self._world.loops.remove(self)

    def next_at(self) -> float:
        """Return when there will be something to run."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if self._ready:
            return self.frozen_until
        return max(timers[0][0], self.frozen_until) if timers else math.inf

    def run_ready(self) -> None:
        """Run what is ready, once."""
        now, timers, ready = self._world.now, self._timers, self._ready
        if self.frozen_until > now:
            return
        while timers and timers[0][0] <= now:
            ready.append(heapq.heappop(timers)[2])
        if not ready:
            return
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def time(self) -> float:
        return self._world.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._dead

    def is_closed(self) -> bool:
        return self._dead

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, **options)

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._dead:
            self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = round(when, 6)
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when their time comes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._dead:
            self.errors.append(f"{context['message']}: {context.get('exception')!r}")

    def start(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin the process's main task."""
        return asyncio.Task(main, loop=self)


class ProcessClock(LoopClock):
    """A process's monotonic clock, of an arbitrary origin; its waits are the loop's."""

    def __init__(self, world: World, origin: float) -> None:
        self._world = world
        self._origin = origin

    def monotonic(self) -> float:
        return self._world.now + self._origin
