"""Forgets the journal, or the log, by age, oldest first, in steps so small that nobody notices.

Every replica runs one; at each bucket only one of them does something at a time.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from server.domain.errors import DatabaseUnavailable

_log = logging.getLogger(__name__)

STEP_ENTRIES = 100
"""The most entries of one step, some milliseconds of work."""

STEP_PAUSE = 0.05
"""Seconds between two steps while there is more to forget."""

_CHECKS_PER_LIFE = 100.0
_SHORTEST, _LONGEST = 1.0, 300.0


class Kept(Protocol):
    """What is kept for a time: entries numbered by bucket."""

    async def expired_buckets(self, older_than: timedelta) -> list[int]:
        """Return the buckets that have entries older than that."""
        ...

    async def forget(self, bucket: int, older_than: timedelta, most: int) -> int:
        """Remove up to `most` of a bucket's oldest entries; return how many numbers they took."""
        ...


class Retention:
    """Keeps entries `keep` seconds long; `what` they are is said when something fails."""

    def __init__(self, kept: Kept, keep: float, what: str) -> None:
        self._kept = kept
        self._what = what
        self._keep = timedelta(seconds=keep)
        self._pause = min(max(keep / _CHECKS_PER_LIFE, _SHORTEST), _LONGEST)

    async def run(self) -> None:
        """Forget what is too old, until cancelled."""
        while True:
            try:
                await self.forget()
            except DatabaseUnavailable as error:
                _log.warning(
                    "the oldest entries of the %s cannot be removed, trying again: %r", self._what, error.__cause__
                )
            except Exception:
                _log.exception("removing the oldest entries of the %s failed", self._what)
            await asyncio.sleep(self._pause)

    async def forget(self) -> None:
        """Forget what is too old now. Raise DatabaseUnavailable."""
        for bucket in await self._kept.expired_buckets(self._keep):
            forgotten = STEP_ENTRIES
            while forgotten >= STEP_ENTRIES:
                forgotten = await self._kept.forget(bucket, self._keep, STEP_ENTRIES)
                await asyncio.sleep(STEP_PAUSE if forgotten else 0.0)
