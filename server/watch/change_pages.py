"""The journal's table, read page by page for readers that are behind.

A page says what a bucket has between two numbers, which never changes. Many readers that come
back at once ask for the same pages, so each is read once and the last ones are kept. At most
two are read at a time: catching up never takes the connections that calls need.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from server.storage.change_feed import ChangeFeedStore, JournalPage
from server.watch.single_flight import heard

PAGE_ENTRIES = 16
KEPT_CHANGES = 100_000
"""The most changes in the pages that are kept."""

_READING = 2

Key = tuple[int, int, int]


class ChangePages:
    """Reads pages for any number of readers."""

    def __init__(self, change_feed: ChangeFeedStore, kept_changes: int = KEPT_CHANGES) -> None:
        self._change_feed = change_feed
        self._room = asyncio.Semaphore(_READING)
        self._kept: OrderedDict[Key, tuple[JournalPage, int]] = OrderedDict()
        self._changes = 0
        self._most = kept_changes
        self._reading: dict[Key, asyncio.Task[JournalPage]] = {}

    async def read(self, bucket: int, after: int, mailing_id: int) -> JournalPage:
        """Return the bucket's next entries behind `after`, of one mailing or (0) of all.

        Raise DatabaseUnavailable.
        """
        key = (bucket, after, mailing_id)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._load(key), name="journal page")
            task.add_done_callback(heard)
        return await asyncio.shield(task)  # others may wait for it, too

    async def _load(self, key: Key) -> JournalPage:
        try:
            async with self._room:
                page = await self._change_feed.read(*key, PAGE_ENTRIES)
        finally:
            del self._reading[key]
        _, after, _ = key
        if page.floor <= after:  # else some of it is gone
            self._keep(key, page)
        return page

    def _keep(self, key: Key, page: JournalPage) -> None:
        size = 1 + sum(len(entry.client_ids) for entry in page.entries)
        self._kept[key] = page, size
        self._changes += size
        while self._changes > self._most:
            _, (_, gone) = self._kept.popitem(last=False)
            self._changes -= gone

    def clear(self) -> None:
        """Forget all pages."""
        self._kept.clear()
        self._changes = 0
