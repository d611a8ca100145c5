"""The streams of one replica, as the API sees them: here they begin, and here they end together.

The database is read once for all streams of a kind, whatever their number, and not at all without
streams. Nothing is queued per stream: each holds a position, and takes what is behind it when its
connection has room.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from uuid import UUID

from dispatcher.tasks import cancel
from server.domain.change_feed import ChangeQuery
from server.domain.events import EventQuery
from server.domain.mailings import Mailing
from server.domain.replicas import DispatchState
from server.domain.resume_tokens import Tokens
from server.observability.metrics.samples import Samples
from server.storage.change_feed import ChangeFeedStore
from server.storage.events import EventStore
from server.storage.mailings import ProgressStore
from server.storage.replicas import ReplicaStore
from server.watch.change_pages import ChangePages
from server.watch.change_reader import ChangeBatch, ChangeReader
from server.watch.change_ring import RING_CHANGES
from server.watch.change_tailer import ChangeTailer, Polling
from server.watch.event_hub import EventBatch, EventHub
from server.watch.mailing_hub import MailingHub
from server.watch.mailing_topic import View
from server.watch.replica_hub import ReplicaHub
from server.watch.retention import Retention

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams are served. Times are seconds."""

    change_retention: float = 72 * 3600.0
    """How long the change feed is kept."""
    event_retention: float = 168 * 3600.0
    """How long the event log is kept."""
    checkpoint: float = 5.0
    """How often an idle stream of messages gets its position."""
    polling: Polling = field(default_factory=Polling)
    ring_changes: int = RING_CHANGES
    """The most changes held in memory for readers that keep up."""


class StreamStores(NamedTuple):
    """Where streams are read from."""

    progress: ProgressStore
    change_feed: ChangeFeedStore
    replicas: ReplicaStore
    events: EventStore


class Streams:
    """Begins streams on the database of this `epoch`. `encode` makes what is sent of a mailing."""

    def __init__(
        self, stores: StreamStores, epoch: UUID, encode: Callable[[Mailing], bytes], settings: StreamSettings
    ) -> None:
        self._epoch = epoch
        self._buckets = stores.change_feed.buckets
        self._checkpoint = settings.checkpoint
        self._mailing_hub = MailingHub(stores.progress, encode)
        self._tailer = ChangeTailer(stores.change_feed, settings.polling, settings.ring_changes)
        self._pages = ChangePages(stores.change_feed)
        self._replica_hub = ReplicaHub(stores.replicas)
        self._event_hub = EventHub(stores.events)
        self._retentions = (
            Retention(stores.change_feed, settings.change_retention, "change feed"),
            Retention(stores.events, settings.event_retention, "event log"),
        )
        self._forgetting: list[asyncio.Task[None]] = []
        self._watchers = Counter({"dispatch": 0, "log": 0})

    def start(self) -> None:
        """Begin to remove what is too old."""
        self._forgetting = [asyncio.create_task(one.run(), name="retention") for one in self._retentions]

    async def close(self) -> None:
        """End every stream with ShuttingDown, let no other begin, and remove nothing any more."""
        self._replica_hub.close()
        self._event_hub.close()
        await self._mailing_hub.close()
        await self._tailer.close()
        await cancel(*self._forgetting)

    def tokens(self, query: ChangeQuery | EventQuery) -> Tokens:
        """Return the maker of this query's tokens."""
        return Tokens(self._epoch, self._buckets, query)

    def mailing(self, mailing_id: int, interval: float) -> AsyncGenerator[View, None]:
        """Watch one mailing; see `MailingHub.watch`."""
        return self._mailing_hub.watch(mailing_id, interval)

    def messages(self, query: ChangeQuery, token: str, from_start: bool) -> AsyncGenerator[ChangeBatch, None]:
        """Watch messages; see `ChangeReader.batches`."""
        reader = ChangeReader(self._tailer, self._pages, query, self._checkpoint)
        return reader.batches(self.tokens(query), token, from_start)

    def replicas(self, interval: float) -> AsyncGenerator[DispatchState, None]:
        """Watch the replicas; see `ReplicaHub.watch`."""
        return self._counted("dispatch", self._replica_hub.watch(interval))

    def events(self, query: EventQuery, token: str) -> AsyncGenerator[EventBatch, None]:
        """Read the event log; see `EventHub.batches`."""
        return self._counted("log", self._event_hub.batches(query, self.tokens(query), token))

    def hint(self) -> None:
        """Note that somebody in this process changed a mailing."""
        self._mailing_hub.hint()

    def samples(self) -> Samples:
        """Return how many streams there are and how far the change feed's reader is behind, as metrics show it."""
        watchers = {"mailing": self._mailing_hub.watchers, "messages": self._tailer.readers, **self._watchers}
        return {
            "mailing_watchers": {(kind,): count for kind, count in watchers.items()},
            "mailing_journal_lag_seconds": {(): self._tailer.lag},
        }

    async def _counted(self, kind: str, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        self._watchers[kind] += 1
        try:
            async with aclosing(stream):
                async for one in stream:
                    yield one
        finally:
            self._watchers[kind] -= 1
