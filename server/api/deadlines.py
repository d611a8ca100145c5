"""Deadlines of what tasks do, all of one length: one timer serves them all.

A timer of its own for each costs a tenth of the write to a stream, or of a small call.
"""

from __future__ import annotations

import asyncio
from itertools import takewhile
from typing import Any

Task = asyncio.Task[Any]


def current_task() -> Task:
    """Return the task of the present call, which is gRPC's, and ends when the call has."""
    task = asyncio.current_task()
    assert task is not None, "calls are served by tasks"
    return task


class Deadlines:
    """Cancels tasks that take more than `longest` seconds, at most a quarter of that later, and never a second."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._since: dict[Task, float] = {}  # the oldest first
        self._overdue: set[Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: Task) -> None:
        """Note that a task begins something, of which `end` is to be called."""
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._schedule(loop)

    def end(self, task: Task) -> None:
        """Note that it has ended, successfully or not."""
        del self._since[task]
        if self._overdue:
            self._overdue.discard(task)

    def passed(self, task: Task) -> bool:
        """Return whether the task was cancelled for its deadline alone; that cancellation is over then.

        As with asyncio.timeout a cancellation from elsewhere has the last word. To be asked where CancelledError
        is caught, before `end`.
        """
        return task in self._overdue and task.uncancel() == 0

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(min(self._longest / 4, 1.0), self._cancel_overdue, loop)

    def _cancel_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        latest = loop.time() - self._longest
        for task in [*takewhile(lambda one: self._since[one] < latest, self._since)]:
            if task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        if self._since:
            self._schedule(loop)
