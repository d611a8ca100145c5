"""The log as its readers see it: entries, what a reader chooses of them, and their order.

Within a bucket entries are in the order of their numbers, which is that of their commits.
Between buckets they are put into the order of their times as far as that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from itertools import accumulate

from dispatcher.outcome_events import Level
from server.domain.change_feed import Positions
from server.domain.pagination import query_digest


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One entry that was written. 0 in an id: about none."""

    at: datetime
    level: Level
    event: str
    text: str
    mailing_id: int
    message_id: int
    client_id: int
    principal: str
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which entries are meant; 0: about any."""

    mailing_id: int = 0
    message_id: int = 0
    client_id: int = 0
    level: Level = Level.DEBUG

    def digest(self) -> bytes:
        """Return what tells this query's tokens from others."""
        return query_digest("WatchLog", self.mailing_id, self.message_id, self.client_id, int(self.level))


@dataclass(frozen=True, slots=True)
class BucketPage:
    """What one bucket has behind `after`: numbered entries, and nothing else that was asked for up to `reached`.

    `head` is the last number given, `floor` the last one forgotten. `reached_at` is the time
    of the last entry looked at, asked for or not, None when there was none.
    """

    after: int
    entries: Sequence[tuple[int, RecordedEvent]]
    reached: int
    reached_at: datetime | None
    head: int
    floor: int

    @property
    def more(self) -> bool:
        """Whether there may be entries behind it."""
        return self.reached < self.head


def in_order(pages: Sequence[BucketPage]) -> tuple[list[RecordedEvent], Positions]:
    """Return the entries that can be handed on, by time, and the positions that they lead to.

    Nothing is handed on that is later than something a bucket may still have. The bucket
    that holds the others back hands on all of its page, so this never stands still.
    """
    times = [_times(page) for page in pages]
    horizons = [max(own[-1:] + _known(page.reached_at)) for page, own in zip(pages, times, strict=True) if page.more]
    horizon = min(horizons, default=None)
    positions, streams = [], []
    for page, own in zip(pages, times, strict=True):
        ready = [(at, one) for at, one in zip(own, page.entries, strict=True) if horizon is None or at <= horizon]
        whole = len(ready) == len(page.entries)
        positions.append(page.reached if whole else ready[-1][1][0] if ready else page.after)
        streams.append(ready)
    ordered = merge(*streams, key=lambda pair: pair[0])
    return [logged for _, (_, logged) in ordered], tuple(positions)


def _times(page: BucketPage) -> list[datetime]:
    """Return the entries' times, never falling: they were taken before the numbers were."""
    return list(accumulate((logged.at for _, logged in page.entries), max))


def _known(moment: datetime | None) -> list[datetime]:
    return [] if moment is None else [moment]
