"""Pages of the change feed's table, for readers that are behind.

A page holds a bucket's entries between two numbers, which never change on one timeline of the
server. Many readers that come
back at once ask for the same pages, so each is read once and the last ones are kept. At most two
are read at a time: catching up never takes the connections that calls need.
"""

from __future__ import annotations

from collections import OrderedDict

from dispatcher.tasks import SingleFlight
from server.storage.change_feed import ChangeFeedStore, ChangePage

PAGE_ENTRIES = 16
KEPT_CHANGES = 100_000
"""The most changes in the pages that are kept."""

READS_AT_ONCE = 2

Key = tuple[int, int, int, int]


class ChangePages:
    """Reads pages for any number of readers."""

    def __init__(self, change_feed: ChangeFeedStore, kept_changes: int = KEPT_CHANGES) -> None:
        self._change_feed = change_feed
        self._kept: OrderedDict[Key, tuple[ChangePage, int]] = OrderedDict()
        self._changes = 0
        self._most = kept_changes
        self._load = SingleFlight(self._read, "change page", at_once=READS_AT_ONCE)

    async def read(self, timeline: int, bucket: int, after: int, mailing_id: int) -> ChangePage:
        """Return the bucket's next entries behind `after`, of one mailing or (0) of all.

        Raise DatabaseUnavailable.
        """
        key = (timeline, bucket, after, mailing_id)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        return await self._load(*key)

    async def _read(self, timeline: int, bucket: int, after: int, mailing_id: int) -> ChangePage:
        page = await self._change_feed.read(bucket, after, mailing_id, PAGE_ENTRIES)
        if page.floor <= after:  # else some of it is gone
            self._keep((timeline, bucket, after, mailing_id), page)
        return page

    def _keep(self, key: Key, page: ChangePage) -> None:
        size = 1 + sum(len(entry.client_ids) for entry in page.entries)
        self._kept[key] = page, size
        self._changes += size
        while self._changes > self._most:
            _, (_, gone) = self._kept.popitem(last=False)
            self._changes -= gone
