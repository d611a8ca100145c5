"""Tells operators how dispatching gets on: one read for all who watch, none without them.

There is no loop of its own: a watcher whose interval is over takes what another one has just
read, or reads. Each gets a state per interval, be it new or not: it says that all is quiet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress

from server.domain.dispatch import DispatchState
from server.domain.errors import DatabaseUnavailable, ShuttingDown
from server.store.dispatch import DispatchStore

_log = logging.getLogger(__name__)

SHARED_FOR = 0.5
"""A state may be handed on until it is so old, in parts of a watcher's interval."""


class DispatchHub:
    """The watchers of one replica."""

    def __init__(self, dispatch: DispatchStore) -> None:
        self._dispatch = dispatch
        self._closed = asyncio.Event()
        self._reading: asyncio.Task[DispatchState] | None = None
        self._read_at = 0.0

    async def watch(self, interval: float) -> AsyncGenerator[DispatchState, None]:
        """Yields the state now and then once per `interval` seconds.

        Raises ShuttingDown, and DatabaseUnavailable where the first state cannot be read.
        """
        began = False
        while not self._closed.is_set():
            try:
                state = await self._state(interval * SHARED_FOR)
            except DatabaseUnavailable as error:
                if not began:
                    raise
                _log.warning("replicas cannot be read, trying again: %r", error.__cause__)
            else:
                began = True
                yield state
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), interval)
        raise ShuttingDown

    async def close(self) -> None:
        """Ends every watcher with ShuttingDown and lets no other begin."""
        self._closed.set()

    async def _state(self, most: float) -> DispatchState:
        """Returns what was read at most so many seconds ago."""
        now = asyncio.get_running_loop().time()
        if self._reading is None or now - self._read_at > most or _failed(self._reading):
            self._reading, self._read_at = asyncio.create_task(self._dispatch.read(), name="replicas"), now
        return await asyncio.shield(self._reading)  # others may wait for it, too


def _failed(task: asyncio.Task[DispatchState]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
