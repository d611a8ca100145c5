"""The newest entries of the journal, in memory, for all readers that keep up.

Entries are numbered in the order of their arrival; a reader's cursor is the number of the
next one it takes. The ring forgets the oldest when it is full, whoever has not read them: they
still stand in the table. Readers with nothing left wait by mailing, so that what happens to
other mailings wakes nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from server.domain.change_feed import Entry, Positions
from server.storage.change_feed import News

RING_CHANGES = 250_000
"""The most changes held, some 80 bytes each."""

RING_ENTRIES = 20_000
"""The most entries held, as each has its cost, too."""


class Place(NamedTuple):
    """Where a reader stands: the number of its next entry, and what it has taken so far."""

    cursor: int
    positions: Positions


class Ring:
    """The entries behind `tail` and up to `heads`."""

    def __init__(self, news: News, changes: int = RING_CHANGES) -> None:
        """Begin empty, where `news` stand."""
        self.heads = news.heads
        self.floors = news.floors
        self.tail = list(news.heads)
        self.first = 0
        self._entries: list[Entry] = []
        self._held = 0
        self._most = changes
        self._waiting: dict[int, set[asyncio.Future[Place]]] = {}
        self._failure: Callable[[], Exception] | None = None

    @property
    def end(self) -> int:
        """The number that the next entry will get."""
        return self.first + len(self._entries)

    @property
    def held(self) -> int:
        """How many changes are held."""
        return self._held

    def behind(self, cursor: int, most: int) -> Sequence[Entry]:
        """Return up to `most` entries from `cursor`, which must be between `first` and `end`."""
        begin = cursor - self.first
        return self._entries[begin : begin + most]

    def extend(self, news: News) -> None:
        """Take in what a poll found, and wakes those who wait for it."""
        before = Place(self.end, self.heads)
        self.heads, self.floors = news.heads, news.floors
        self._entries += news.entries
        self._held += sum(len(entry.client_ids) for entry in news.entries)
        self._forget()
        mailings = {entry.mailing_id for entry in news.entries}
        for mailing_id in (0, *mailings) if mailings else ():
            self._wake(mailing_id, before)

    def _wake(self, mailing_id: int, place: Place) -> None:
        # Whoever waits has taken everything, or cares for nothing of it: their place is here.
        for waiter in self._waiting.get(mailing_id, ()):
            if not waiter.done():
                waiter.set_result(place)

    def _forget(self) -> None:
        gone = 0
        while self._held > self._most or len(self._entries) - gone > RING_ENTRIES:
            entry = self._entries[gone]
            self._held -= len(entry.client_ids)
            self.tail[entry.bucket] = entry.seq
            gone += 1
        if gone:
            del self._entries[:gone]
            self.first += gone

    async def wait(self, mailing_id: int, seconds: float) -> Place:
        """Return where to go on, when there is something of the mailing (0: of any), or after `seconds`.

        For readers that have taken everything. Raise what `fail` was told to.
        """
        self.check()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Place] = loop.create_future()
        waiters = self._waiting.setdefault(mailing_id, set())
        waiters.add(waiter)
        timer = loop.call_later(seconds, self._heartbeat, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            waiters.discard(waiter)
            if not waiters and self._waiting.get(mailing_id) is waiters:
                del self._waiting[mailing_id]

    def _heartbeat(self, waiter: asyncio.Future[Place]) -> None:
        if not waiter.done():
            waiter.set_result(Place(self.end, self.heads))

    def fail(self, failure: Callable[[], Exception]) -> None:
        """End the wait of every reader, and every later one, with an error of its own made by `failure`."""
        self._failure = failure
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(failure())

    def check(self) -> None:
        """Raise what `fail` was told to."""
        if self._failure is not None:
            raise self._failure()
