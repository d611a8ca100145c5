"""Tells operators how dispatching gets on: one read for all who watch, none without them.

There is no loop of its own: a watcher whose interval is over takes what another one has just
read, or reads. Each gets a state per interval, be it new or not: it says that all is quiet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress

from server.domain.errors import DatabaseUnavailable, ShuttingDown
from server.domain.replicas import DispatchState
from server.storage.replicas import ReplicaStore
from server.watch.single_flight import SingleFlight

_log = logging.getLogger(__name__)

SHARED_FOR = 0.5
"""A state may be handed on until it is so old, in parts of a watcher's interval."""


class DispatchHub:
    """The watchers of one replica."""

    def __init__(self, dispatch: ReplicaStore) -> None:
        self._state = SingleFlight(dispatch.read)
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
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), interval)
        raise ShuttingDown

    def close(self) -> None:
        """End every watcher with ShuttingDown and let no other begin."""
        self._closed.set()
