"""Streams the state of dispatching to operators: one read for all who watch, none without them.

There is no loop of its own: a watcher whose interval is over takes what another one has just
read, or reads. Each gets a state per interval, whether it changed or not: that shows the stream
is alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from dispatcher.tasks import CachedRead, happens
from server.domain.errors import DatabaseUnavailable, ShuttingDown
from server.domain.replicas import DispatchState
from server.storage.replicas import ReplicaStore

_log = logging.getLogger(__name__)

SHARED_FOR = 0.5
"""The age, in parts of a watcher's interval, up to which it takes what another watcher has read."""


class ReplicaHub:
    """The watchers of dispatching on one replica."""

    def __init__(self, replicas: ReplicaStore) -> None:
        self._state = CachedRead(replicas.read, "dispatch state")
        self._closed = asyncio.Event()

    async def watch(self, interval: float) -> AsyncGenerator[DispatchState, None]:
        """Yield the state now and then once per `interval` seconds.

        Raise ShuttingDown, and DatabaseUnavailable where the first state cannot be read.
        """
        began = False
        while not self._closed.is_set():
            try:
                state = await self._state.get(interval * SHARED_FOR)
            except DatabaseUnavailable as error:
                if not began:
                    raise
                _log.warning("replicas cannot be read, trying again: %r", error.__cause__)
            else:
                began = True
                yield state
            await happens(self._closed, interval)
        raise ShuttingDown

    def close(self) -> None:
        """End every watcher with ShuttingDown and let no other begin."""
        self._closed.set()
