"""The newest entries of the change feed, in memory, for all readers that keep up.

Entries are numbered in the order of their arrival; a reader's cursor is the number of the next
one it takes. When the ring is full it drops the oldest entries, read or not: they are still in
the table. Readers that have taken everything wait by mailing, so that what happens to other
mailings wakes nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from server.domain.change_feed import Entry
from server.domain.resume_tokens import Positions
from server.storage.change_feed import Poll
from server.watch.waiters import Waiters

RING_CHANGES = 250_000
"""The most changes held, some 80 bytes each."""

RING_ENTRIES = 20_000
"""The most entries held, as each of them costs memory, too."""


class Place(NamedTuple):
    """The place of a reader: the number of its next entry, and the positions of what it has taken."""

    cursor: int
    positions: Positions


class ChangeRing:
    """The entries behind `tail` and up to `heads`; `floors` are the last numbers removed from the table.

    All of one `timeline` of the server.
    """

    def __init__(self, poll: Poll, changes: int = RING_CHANGES) -> None:
        """Begin empty, at the positions of `poll`."""
        self.timeline = poll.timeline
        self.heads = poll.heads
        self.floors = poll.floors
        self.tail = list(poll.heads)
        self.first = 0
        self._entries: list[Entry] = []
        self._held = 0
        self._most = changes
        self._waiting: dict[int, Waiters[Place]] = {}
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

    def extend(self, poll: Poll) -> None:
        """Take in what a poll found, and wake the readers that wait for it."""
        before = Place(self.end, self.heads)
        self.heads, self.floors = poll.heads, poll.floors
        self._entries += poll.entries
        self._held += sum(len(entry.client_ids) for entry in poll.entries)
        self._drop_oldest()
        mailings = {entry.mailing_id for entry in poll.entries}
        for mailing_id in (0, *mailings) if mailings else ():
            # A reader that waits has taken everything, or needs nothing of it: its place is here.
            if mailing_id in self._waiting:
                self._waiting[mailing_id].answer(before)

    def _drop_oldest(self) -> None:
        dropped = 0
        while self._held > self._most or len(self._entries) - dropped > RING_ENTRIES:
            entry = self._entries[dropped]
            self._held -= len(entry.client_ids)
            self.tail[entry.bucket] = entry.seq
            dropped += 1
        if dropped:
            del self._entries[:dropped]
            self.first += dropped

    async def wait(self, mailing_id: int, seconds: float) -> Place:
        """Return where to go on: when there is an entry of the mailing (0: of any), or after `seconds`.

        For readers that have taken everything. Raise the error given to `fail`.
        """
        self.check()
        waiters = self._waiting.setdefault(mailing_id, Waiters())
        try:
            return await waiters.wait_for(seconds, self._here)
        finally:
            if not waiters and self._waiting.get(mailing_id) is waiters:
                del self._waiting[mailing_id]

    def _here(self) -> Place:
        return Place(self.end, self.heads)

    def fail(self, failure: Callable[[], Exception]) -> None:
        """End the wait of every reader, and every later one, with an error of its own made by `failure`."""
        self._failure = failure
        for waiters in self._waiting.values():
            waiters.fail(failure)

    def check(self) -> None:
        """Raise the error given to `fail`, if there is one."""
        if self._failure is not None:
            raise self._failure()
