"""The streams of operators on one replica: they begin here, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from uuid import UUID

from server.domain.dispatch import DispatchState
from server.domain.journal import Tokens
from server.domain.log import LogQuery
from server.store.dispatch import DispatchStore
from server.store.log import LogStore
from server.streams.dispatch_hub import DispatchHub
from server.streams.log_hub import LogBatch, LogHub
from server.streams.retention import Retention


class AdminStreams:
    """Begins streams of replicas and of the log, which is kept for `retention` seconds."""

    def __init__(self, dispatch: DispatchStore, log: LogStore, epoch: UUID, retention: float) -> None:
        self._log = log
        self._epoch = epoch
        self._dispatch_hub = DispatchHub(dispatch)
        self._log_hub = LogHub(log)
        self._retention = Retention(log, retention, "log")
        self._forgetting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to forget what is too old."""
        self._forgetting = asyncio.create_task(self._retention.run(), name="log retention")

    async def close(self) -> None:
        """Ends every stream with ShuttingDown, lets no other begin, and forgets no more."""
        self._dispatch_hub.close()
        self._log_hub.close()
        if self._forgetting is not None:
            self._forgetting.cancel()
            with suppress(asyncio.CancelledError):
                await self._forgetting

    def dispatch(self, interval: float) -> AsyncGenerator[DispatchState, None]:
        """Watches the replicas; see `DispatchHub.watch`."""
        return self._dispatch_hub.watch(interval)

    def tokens(self, query: LogQuery) -> Tokens:
        """Returns the maker of this query's tokens."""
        return Tokens(self._epoch, self._log.buckets, query)

    def log(self, query: LogQuery, token: str) -> AsyncGenerator[LogBatch, None]:
        """Reads the log; see `LogHub.batches`."""
        return self._log_hub.batches(query, self.tokens(query), token)
