"""The streams of operators on one replica: they begin here, and end together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TypeVar
from uuid import UUID

from server.domain.change_feed import Tokens
from server.domain.events import EventQuery
from server.domain.replicas import DispatchState
from server.observability.metrics.samples import Samples
from server.storage.events import EventStore
from server.storage.replicas import ReplicaStore
from server.watch.event_hub import EventBatch, EventHub
from server.watch.replica_hub import DispatchHub
from server.watch.retention import Retention

T = TypeVar("T")


class AdminStreams:
    """Begins streams of replicas and of the log, which is kept for `retention` seconds."""

    def __init__(self, dispatch: ReplicaStore, log: EventStore, epoch: UUID, retention: float) -> None:
        self._log = log
        self._epoch = epoch
        self._dispatch_hub = DispatchHub(dispatch)
        self._log_hub = EventHub(log)
        self._retention = Retention(log, retention, "log")
        self._forgetting: asyncio.Task[None] | None = None
        self._watchers = Counter({"dispatch": 0, "log": 0})

    def start(self) -> None:
        """Begin to forget what is too old."""
        self._forgetting = asyncio.create_task(self._retention.run(), name="log retention")

    async def close(self) -> None:
        """End every stream with ShuttingDown, let no other begin, and forget no more."""
        self._dispatch_hub.close()
        self._log_hub.close()
        if self._forgetting is not None:
            self._forgetting.cancel()
            with suppress(asyncio.CancelledError):
                await self._forgetting

    def dispatch(self, interval: float) -> AsyncGenerator[DispatchState, None]:
        """Watch the replicas; see `DispatchHub.watch`."""
        return self._counted("dispatch", self._dispatch_hub.watch(interval))

    def tokens(self, query: EventQuery) -> Tokens:
        """Return the maker of this query's tokens."""
        return Tokens(self._epoch, self._log.buckets, query)

    def log(self, query: EventQuery, token: str) -> AsyncGenerator[EventBatch, None]:
        """Read the log; see `EventHub.batches`."""
        return self._counted("log", self._log_hub.batches(query, self.tokens(query), token))

    def samples(self) -> Samples:
        """Return how many streams there are, as metrics show it."""
        return {"mailing_watchers": {(kind,): count for kind, count in self._watchers.items()}}

    async def _counted(self, kind: str, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        self._watchers[kind] += 1
        try:
            async with aclosing(stream):
                async for one in stream:
                    yield one
        finally:
            self._watchers[kind] -= 1
