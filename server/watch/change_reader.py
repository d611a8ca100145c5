"""One stream of messages: where it stands, and what it hands on next.

It takes from the ring while it keeps up. One that resumes far behind, or whose connection has
no room for long, finds its next entry gone from the ring and reads the table, at its own
pace, until it has come up to the ring again. Either way it holds a few entries at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from random import uniform

from server.domain.change_feed import ChangeQuery, Entry, Positions, Tokens
from server.domain.errors import ResumeTokenExpired
from server.watch.change_pages import ChangePages
from server.watch.change_ring import Ring
from server.watch.change_tailer import Tailer

BATCH_CHANGES = 500
"""The most changes of a batch, unless a single entry has more."""

CHECKPOINTS_PER_SECOND = 50.0
"""The most checkpoints of all streams of a replica together: with very many, each gets fewer."""

_SLICE = 64
_FORGOTTEN = "is older than the journal that is kept"
_LOST = "names changes that the database has lost"


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries to hand on together, none in a checkpoint. `before` and `positions` stand around them."""

    entries: Sequence[Entry]
    before: Positions
    positions: Positions


@dataclass(slots=True)
class _Parcel:
    """A batch in the making."""

    query: ChangeQuery
    entries: list[Entry] = field(default_factory=list)
    count: int = 0

    def add(self, entry: Entry) -> bool:
        """Take an entry in, if anything of it is asked for; return False where it no longer fits."""
        count = 0
        if self.query.mailing_id in (0, entry.mailing_id):
            count = entry.count(self.query.statuses)
        if count:
            if self.entries and self.count + count > BATCH_CHANGES:
                return False
            self.entries.append(entry)
            self.count += count
        return True


class MessageReader:
    """Reads for one stream. `checkpoint` is how often an idle stream is told its position, in seconds."""

    def __init__(self, tailer: Tailer, pages: ChangePages, query: ChangeQuery, checkpoint: float) -> None:
        self._tailer = tailer
        self._pages = pages
        self._query = query
        self._checkpoint = checkpoint
        self._cursor = -1
        self._positions: list[int] = []
        self._told: Positions = ()
        self._told_at = 0.0
        self._spread = uniform(0.8, 1.0)  # noqa: S311  streams that began together part

    async def batches(self, tokens: Tokens, token: str, from_start: bool) -> AsyncGenerator[Batch, None]:
        """Yield batches behind `token` or, without one, from the start of what is kept or from now.

        Begins with a checkpoint when there is nothing to catch up. Raise InvalidResumeToken,
        ResumeTokenExpired, ShuttingDown and DatabaseUnavailable.
        """
        wanted = tokens.decode(token) if token else None
        with self._tailer.reading():
            ring = await self._tailer.fresh()
            self._begin(ring, wanted, from_start)
            if tuple(self._positions) == ring.heads:
                yield self._batch(())
            while True:
                ring.check()
                if self._cursor < ring.first:
                    async for batch in self._catch_up(ring):
                        yield batch
                elif self._cursor < ring.end:
                    entries = self._take(ring)
                    if entries:
                        yield self._batch(entries)
                elif (checkpoint := await self._idle(ring)) is not None:
                    yield checkpoint

    def _begin(self, ring: Ring, wanted: Positions | None, from_start: bool) -> None:
        if wanted is None:
            wanted = ring.floors if from_start else ring.heads
        self._positions, self._told = list(wanted), wanted
        self._told_at = asyncio.get_running_loop().time()
        if any(mine < floor for mine, floor in zip(wanted, ring.floors, strict=True)):
            raise ResumeTokenExpired(_FORGOTTEN)
        if any(mine > head for mine, head in zip(wanted, ring.heads, strict=True)):
            raise ResumeTokenExpired(_LOST)
        if wanted == ring.heads:
            self._cursor = ring.end

    def _batch(self, entries: Sequence[Entry]) -> Batch:
        self._told_at = asyncio.get_running_loop().time()
        before, self._told = self._told, tuple(self._positions)
        return Batch(entries, before, self._told)

    async def _idle(self, ring: Ring) -> Batch | None:
        """Wait for something to take; return a checkpoint when it is time for one."""
        self._positions = list(ring.heads)
        interval = max(self._checkpoint, self._tailer.readers / CHECKPOINTS_PER_SECOND) * self._spread
        left = self._told_at + interval - asyncio.get_running_loop().time()
        place = await ring.wait(self._query.mailing_id, max(left, 0.0))
        self._cursor, self._positions = place.cursor, list(place.positions)
        if asyncio.get_running_loop().time() >= self._told_at + interval:
            return self._batch(())
        return None

    def _take(self, ring: Ring) -> Sequence[Entry]:
        """Move on over entries of the ring and return those to hand on together."""
        parcel = _Parcel(self._query)
        while entries := ring.behind(self._cursor, _SLICE):
            for entry in entries:
                # Behind the table's pages the ring may begin with what they had, too.
                if entry.seq > self._positions[entry.bucket]:
                    if not parcel.add(entry):
                        return parcel.entries
                    self._positions[entry.bucket] = entry.seq
                self._cursor += 1
        self._positions = list(ring.heads)
        return parcel.entries

    async def _catch_up(self, ring: Ring) -> AsyncGenerator[Batch, None]:
        """Read the table until every bucket has come up to where the ring begins."""
        parcel = _Parcel(self._query)
        while behind := [b for b, mine in enumerate(self._positions) if mine < ring.tail[b]]:
            for bucket in behind:
                ring.check()
                after, until = self._positions[bucket], ring.tail[bucket]
                page = await self._pages.read(bucket, after, self._query.mailing_id)
                if after < page.floor:
                    raise ResumeTokenExpired(_FORGOTTEN)
                for entry in page.entries:
                    if entry.seq > until:  # the ring has it
                        break
                    if not parcel.add(entry):
                        yield self._batch(parcel.entries)
                        parcel = _Parcel(self._query)
                        parcel.add(entry)
                    self._positions[bucket] = entry.seq
                self._positions[bucket] = min(page.reached, until)
                if asyncio.get_running_loop().time() >= self._told_at + self._checkpoint:
                    yield self._batch(parcel.entries)
                    parcel = _Parcel(self._query)
        # Before anything is handed on: until that is taken, the ring may drop what is not read yet.
        self._cursor = ring.first
        if parcel.entries:
            yield self._batch(parcel.entries)
