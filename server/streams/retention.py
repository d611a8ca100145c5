"""Forgets the journal by age, oldest first, in steps so small that nobody notices.

Every replica runs one; at each bucket only one of them does something at a time.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from server.domain.errors import DatabaseUnavailable
from server.store.journal import JournalStore

_log = logging.getLogger(__name__)

STEP_ENTRIES = 100
"""The most entries of one step, some milliseconds of work."""

STEP_PAUSE = 0.05
"""Seconds between two steps while there is more to forget."""

_CHECKS_PER_LIFE = 100.0
_SHORTEST, _LONGEST = 1.0, 60.0


class Retention:
    """Keeps the journal `keep` seconds long."""

    def __init__(self, journal: JournalStore, keep: float) -> None:
        self._journal = journal
        self._keep = timedelta(seconds=keep)
        self._pause = min(max(keep / _CHECKS_PER_LIFE, _SHORTEST), _LONGEST)

    async def run(self) -> None:
        """Forgets what is too old, until cancelled."""
        while True:
            try:
                await self.forget()
            except DatabaseUnavailable as error:
                _log.warning("the journal's oldest entries cannot be removed, trying again: %r", error.__cause__)
            except Exception:
                _log.exception("removing the journal's oldest entries failed")
            await asyncio.sleep(self._pause)

    async def forget(self) -> None:
        """Forgets what is too old now. Raises DatabaseUnavailable."""
        for bucket in await self._journal.expired_buckets(self._keep):
            forgotten = STEP_ENTRIES
            while forgotten >= STEP_ENTRIES:
                forgotten = await self._journal.forget(bucket, self._keep, STEP_ENTRIES)
                await asyncio.sleep(STEP_PAUSE if forgotten else 0.0)
