"""Deadlines for writing to streams: a caller that stops reading must not hold a stream for ever.

One timer serves all streams of the server: a timer for each write would cost a tenth of the write.
"""

from __future__ import annotations

import asyncio
from itertools import takewhile
from typing import Any

from server.api.handlers import Context


class WriteDeadlines:
    """The writes under way; one that waits for more than `patience` seconds is given up."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[StreamWriter, float] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, writer: StreamWriter, loop: asyncio.AbstractEventLoop) -> None:
        """Note that a write begins."""
        self._since[writer] = loop.time()
        if self._timer is None:
            self._schedule(loop)

    def end(self, writer: StreamWriter) -> None:
        """Note that it has ended, successfully or not."""
        del self._since[writer]

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(min(self._patience / 4, 1.0), self._give_up_overdue, loop)

    def _give_up_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        overdue = loop.time() - self._patience
        for writer in [*takewhile(lambda one: self._since[one] < overdue, self._since)]:
            writer.give_up()
        if self._since:
            self._schedule(loop)


class StreamWriter:
    """Sends the responses of one stream, from its task."""

    __slots__ = ("_deadlines", "_given_up", "_loop", "_task")

    def __init__(self, deadlines: WriteDeadlines) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served by tasks"
        self._deadlines = deadlines
        self._loop = task.get_loop()
        self._task = task
        self._given_up = False

    async def write(self, context: Context, response: Any) -> None:
        """Return when the connection has taken the response. Raise TimeoutError if the write was given up."""
        self._deadlines.begin(self, self._loop)
        try:
            await context.write(response)
        except asyncio.CancelledError:
            # As with asyncio.timeout: a cancellation from elsewhere has the last word.
            if self._given_up and self._task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._deadlines.end(self)

    def give_up(self) -> None:
        """End the write under way, once."""
        if not self._given_up:
            self._given_up = True
            self._task.cancel()
