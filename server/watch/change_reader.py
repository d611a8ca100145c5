"""One stream of messages: its position, and what it sends next.

It takes entries from the ring while it keeps up. A stream that resumes far behind, or whose
connection has no room for long, finds its next entry gone from the ring and reads the table, at
its own pace, until it has come up to the ring again. Either way it holds few entries at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from random import uniform

from server.domain.change_feed import ChangeQuery, Entry
from server.domain.resume_tokens import CHANGE_FEED, Positions, Tokens
from server.watch.change_pages import ChangePages
from server.watch.change_ring import ChangeRing
from server.watch.change_tailer import ChangeTailer

BATCH_CHANGES = 500
"""The most changes of a batch, unless a single entry has more."""

CHECKPOINTS_PER_SECOND = 50.0
"""The most checkpoints of all streams of a replica together: with very many, each gets fewer."""

_SLICE = 64


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Entries to send together, none in a checkpoint: they lead from `before` to `positions` of a timeline."""

    entries: Sequence[Entry]
    before: Positions
    positions: Positions
    timeline: int


@dataclass(slots=True)
class _BatchBuilder:
    """The entries of the next batch, as far as they fit."""

    query: ChangeQuery
    entries: list[Entry] = field(default_factory=list)
    count: int = 0

    def add(self, entry: Entry) -> bool:
        """Add an entry if any of it matches; return False when it does not fit any more."""
        if count := entry.matching(self.query):
            if self.entries and self.count + count > BATCH_CHANGES:
                return False
            self.entries.append(entry)
            self.count += count
        return True

    def take(self) -> Sequence[Entry]:
        """Return the entries and begin the next batch."""
        taken, self.entries, self.count = self.entries, [], 0
        return taken


class ChangeReader:
    """Reads for one stream. An idle stream gets its position every `checkpoint` seconds."""

    def __init__(self, tailer: ChangeTailer, pages: ChangePages, query: ChangeQuery, checkpoint: float) -> None:
        self._tailer = tailer
        self._pages = pages
        self._query = query
        self._checkpoint = checkpoint
        self._cursor = -1
        self._positions: list[int] = []
        self._sent: Positions = ()
        self._sent_at = 0.0
        self._timeline = 0
        self._spread = uniform(0.8, 1.0)  # noqa: S311  streams that began together drift apart

    async def batches(self, tokens: Tokens, token: str, from_start: bool) -> AsyncGenerator[ChangeBatch, None]:
        """Yield batches behind `token` or, without one, from the oldest entry kept or from now.

        Begin with a checkpoint when there is nothing to catch up. Raise InvalidResumeToken,
        ResumeTokenExpired, ShuttingDown and DatabaseUnavailable.
        """
        with self._tailer.reading():
            ring = await self._tailer.fresh()
            wanted = tokens.decode(token, ring.timeline) if token else None
            self._begin(ring, wanted, from_start)
            if tuple(self._positions) == ring.heads:
                yield self._batch(())
            while True:
                ring.check()
                if self._cursor < ring.first:
                    async for batch in self._catch_up(ring):
                        yield batch
                elif self._cursor < ring.end:
                    if entries := self._take(ring):
                        yield self._batch(entries)
                elif (checkpoint := await self._idle(ring)) is not None:
                    yield checkpoint

    def _begin(self, ring: ChangeRing, wanted: Positions | None, from_start: bool) -> None:
        if wanted is None:
            wanted = ring.floors if from_start else ring.heads
        self._positions, self._sent, self._sent_at = list(wanted), wanted, _now()
        self._timeline = ring.timeline
        CHANGE_FEED.check(wanted, ring.floors, ring.heads)
        if wanted == ring.heads:
            self._cursor = ring.end

    def _batch(self, entries: Sequence[Entry]) -> ChangeBatch:
        self._sent_at = _now()
        before, self._sent = self._sent, tuple(self._positions)
        return ChangeBatch(entries, before, self._sent, self._timeline)

    async def _idle(self, ring: ChangeRing) -> ChangeBatch | None:
        """Wait for entries; return a checkpoint when one is due."""
        self._positions = list(ring.heads)
        interval = max(self._checkpoint, self._tailer.readers / CHECKPOINTS_PER_SECOND) * self._spread
        due_at = self._sent_at + interval
        place = await ring.wait(self._query.mailing_id, max(due_at - _now(), 0.0))
        self._cursor, self._positions = place.cursor, list(place.positions)
        return self._batch(()) if _now() >= due_at else None

    def _take(self, ring: ChangeRing) -> Sequence[Entry]:
        """Move on over entries of the ring and return those to send together."""
        batch = _BatchBuilder(self._query)
        while entries := ring.behind(self._cursor, _SLICE):
            for entry in entries:
                # After the table's pages the ring may begin with entries that were in them, too.
                if entry.seq > self._positions[entry.bucket]:
                    if not batch.add(entry):
                        return batch.entries
                    self._positions[entry.bucket] = entry.seq
                self._cursor += 1
        self._positions = list(ring.heads)
        return batch.entries

    async def _catch_up(self, ring: ChangeRing) -> AsyncGenerator[ChangeBatch, None]:
        """Read the table until every bucket has come up to where the ring begins."""
        batch = _BatchBuilder(self._query)
        while behind := [b for b, mine in enumerate(self._positions) if mine < ring.tail[b]]:
            for bucket in behind:
                ring.check()
                after, until = self._positions[bucket], ring.tail[bucket]
                page = await self._pages.read(ring.timeline, bucket, after, self._query.mailing_id)
                CHANGE_FEED.check((after,), (page.floor,), (page.head,))
                for entry in page.entries:
                    if entry.seq > until:  # the ring has it
                        break
                    if not batch.add(entry):
                        yield self._batch(batch.take())
                        batch.add(entry)
                    self._positions[bucket] = entry.seq
                self._positions[bucket] = min(page.reached, until)
                if _now() >= self._sent_at + self._checkpoint:
                    yield self._batch(batch.take())
        # Before anything more is sent: until it is taken, the ring may drop what is not read yet.
        self._cursor = ring.first
        if batch.entries:
            yield self._batch(batch.entries)


def _now() -> float:
    return asyncio.get_running_loop().time()
