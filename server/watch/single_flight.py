"""A read that many want at about the same time, made once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """What `read` returns, read when somebody asks and nothing young enough is there."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._task: asyncio.Task[T] | None = None
        self._began_at = 0.0

    async def get(self, most_age: float) -> T:
        """Return what was read at most so many seconds ago. Raise what the read raises."""
        now = asyncio.get_running_loop().time()
        if self._task is None or now - self._began_at > most_age or _failed(self._task):
            self._task, self._began_at = asyncio.create_task(self._run()), now
            self._task.add_done_callback(heard)
        return await asyncio.shield(self._task)  # others may wait for it, too

    async def _run(self) -> T:
        return await self._read()


def heard(task: asyncio.Task[T]) -> None:
    """Take note of a failure, though all who wanted to know may have gone."""
    if not task.cancelled():
        task.exception()


def _failed(task: asyncio.Task[T]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
