"""The streams of one replica as the API sees them: they begin here, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from server.domain.change_feed import ChangeQuery, Tokens
from server.domain.mailings import Mailing
from server.observability.metrics.samples import Samples
from server.storage.change_feed import ChangeFeedStore
from server.storage.progress import ProgressStore
from server.watch.change_pages import ChangePages
from server.watch.change_reader import Batch, MessageReader
from server.watch.change_ring import RING_CHANGES
from server.watch.change_tailer import Polling, Tailer
from server.watch.mailing_hub import MailingHub
from server.watch.mailing_topic import View
from server.watch.retention import Retention


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams are served. Times are seconds."""

    retention: float = 72 * 3600.0
    """How long the journal is kept."""
    checkpoint: float = 5.0
    """How often an idle stream of messages is told its position."""
    polling: Polling = field(default_factory=Polling)
    ring_changes: int = RING_CHANGES
    """The most changes held in memory for readers that keep up."""


class Streams:
    """Begins streams. `encode` makes what is sent of a mailing."""

    def __init__(
        self,
        change_feed: ChangeFeedStore,
        progress: ProgressStore,
        epoch: UUID,
        encode: Callable[[Mailing], bytes],
        settings: StreamSettings,
    ) -> None:
        self._change_feed = change_feed
        self._epoch = epoch
        self._settings = settings
        self._hub = MailingHub(progress, encode)
        self._tailer = Tailer(change_feed, settings.polling, settings.ring_changes)
        self._pages = ChangePages(change_feed)
        self._retention: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to forget what is too old."""
        retention = Retention(self._change_feed, self._settings.retention, "journal")
        self._retention = asyncio.create_task(retention.run(), name="journal retention")

    async def close(self) -> None:
        """End every stream with ShuttingDown, let no other begin, and forget no more."""
        await self._hub.close()
        await self._tailer.close()
        if self._retention is not None:
            self._retention.cancel()
            with suppress(asyncio.CancelledError):
                await self._retention

    def mailing(self, mailing_id: int, interval: float) -> AsyncGenerator[View, None]:
        """Watch one mailing; see `MailingHub.watch`."""
        return self._hub.watch(mailing_id, interval)

    def tokens(self, query: ChangeQuery) -> Tokens:
        """Return the maker of this query's tokens."""
        return Tokens(self._epoch, self._change_feed.buckets, query)

    def messages(self, query: ChangeQuery, token: str, from_start: bool) -> AsyncGenerator[Batch, None]:
        """Watch messages; see `MessageReader.batches`."""
        reader = MessageReader(self._tailer, self._pages, query, self._settings.checkpoint)
        return reader.batches(self.tokens(query), token, from_start)

    def samples(self) -> Samples:
        """Return how many streams there are and how far the journal's reader is behind, as metrics show it."""
        return {
            "mailing_watchers": {("mailing",): self._hub.watchers, ("messages",): self._tailer.readers},
            "mailing_journal_lag_seconds": {(): self._tailer.lag},
        }

    def hint(self) -> None:
        """Note that somebody in this process changed a mailing."""
        self._hub.hint()
