"""Removes what is too old of the change feed or the event log, the oldest first, in steps too small to be felt.

Every replica runs one for each; at any bucket only one of them works at a time.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from server.domain.errors import DatabaseUnavailable
from server.storage.retention import RetainedEntries

_log = logging.getLogger(__name__)

STEP_ENTRIES = 100
"""The most entries of one step, some milliseconds of work."""

STEP_PAUSE = 0.05
"""Seconds between two steps while there is more to remove."""

_CHECKS_PER_LIFE = 100.0
_SHORTEST, _LONGEST = 1.0, 300.0


class Retention:
    """Keeps entries for `keep` seconds; `what` they are is said in the log."""

    def __init__(self, entries: RetainedEntries, keep: float, what: str) -> None:
        self._entries = entries
        self._what = what
        self._keep = timedelta(seconds=keep)
        self._pause = min(max(keep / _CHECKS_PER_LIFE, _SHORTEST), _LONGEST)

    async def run(self) -> None:
        """Remove what is too old, until cancelled."""
        while True:
            try:
                await self.remove_expired()
            except DatabaseUnavailable as error:
                _log.warning(
                    "the oldest entries of the %s cannot be removed, trying again: %r", self._what, error.__cause__
                )
            except Exception:
                _log.exception("removing the oldest entries of the %s failed", self._what)
            await asyncio.sleep(self._pause)

    async def remove_expired(self) -> None:
        """Remove what is too old now. Raise DatabaseUnavailable."""
        for bucket in await self._entries.expired_buckets(self._keep):
            removed = STEP_ENTRIES
            while removed >= STEP_ENTRIES:
                removed = await self._entries.remove_expired(bucket, self._keep, STEP_ENTRIES)
                await asyncio.sleep(STEP_PAUSE if removed else 0.0)
