"""Tasks: how they are ended, waited for, and shared by several callers.

`in_background` ends its work with a block. `SingleFlight` makes one run serve all who want the
same at the same time, and `CachedRead` hands its last result to those who want it again soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Generic, TypeVar, TypeVarTuple

T = TypeVar("T")
Key = TypeVarTuple("Key")


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run `work` inside the block, and end it with the block; what it raises is its own affair."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        await cancel(task)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and return when all have ended, however they did."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Return whether the event is set, having waited for it so many seconds at most."""
    try:
        async with asyncio.timeout(seconds):  # wait_for loses a cancellation that comes with the event
            await event.wait()
    except TimeoutError:
        return False
    return True


class SingleFlight(Generic[*Key, T]):
    """Runs `work` once for all callers who want the same at the same time.

    Calls with equal arguments, which must be hashable, share one run; at most `at_once` runs are
    at work together, the others wait for their turn.

    - Cancellation: a caller that is cancelled stops waiting, and no more. The run goes on for the
      others, and to its end even when all have left.
    - Failure: everybody who waits for the run gets what it raised, and the next call starts a new
      run. A failure that nobody waits for is dropped without a word in the log.
    - Nothing is kept: a call after the run has ended starts a new one. `CachedRead` keeps results.
    """

    def __init__(self, work: Callable[[*Key], Coroutine[Any, Any, T]], name: str, at_once: int | None = None) -> None:
        self._work = work
        self._name = name
        self._turns = nullcontext() if at_once is None else asyncio.Semaphore(at_once)
        self._runs: dict[Hashable, asyncio.Task[T]] = {}

    async def __call__(self, *key: *Key) -> T:
        """Return what `work` returns for these arguments. Raise what it raises."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = asyncio.create_task(self._run(*key), name=self._name)
            run.add_done_callback(partial(self._ended, key))
        return await asyncio.shield(run)  # others may wait for it, too

    async def close(self) -> None:
        """Cancel every run, and with it all who wait, and return when the last one has ended."""
        await cancel(*self._runs.values())

    async def _run(self, *key: *Key) -> T:
        async with self._turns:
            return await self._work(*key)

    def _ended(self, key: Hashable, run: asyncio.Task[T]) -> None:
        del self._runs[key]
        if not run.cancelled():
            run.exception()  # looked at, or it would be logged where nobody waits any more


class CachedRead(Generic[T]):
    """The last result of `read`, for callers that are content with a recent one.

    Reads are shared as by SingleFlight, whose rules for cancellation and failures hold. Only what
    succeeded is kept.
    """

    def __init__(self, read: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._read = read
        self._shared = SingleFlight(self._renew, name)
        self._kept: tuple[float, T] | None = None

    async def get(self, max_age: float) -> T:
        """Return the result of a read that is under way, or that ended at most `max_age` seconds ago."""
        if self._kept is not None:
            read_at, result = self._kept
            if asyncio.get_running_loop().time() - read_at <= max_age:
                return result
        return await self._shared()

    async def _renew(self) -> T:
        result = await self._read()
        self._kept = asyncio.get_running_loop().time(), result
        return result
