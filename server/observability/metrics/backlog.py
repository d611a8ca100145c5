"""Figures that are read from the database at a scrape: kept some seconds, and never waited for long.

What could not be read is left out instead of being shown as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from dispatcher.tasks import SingleFlight
from server.domain.errors import DatabaseUnavailable
from server.observability.metrics.samples import Samples
from server.storage.reports import Backlog, OpenWork

log = logging.getLogger(__name__)

KEPT = 5.0
"""Seconds for which what was read is shown again."""

PATIENCE = 1.0
"""Seconds that a scrape waits; what comes later is for the next one."""

LONGEST = 5.0
"""Seconds that reading may take."""


class BacklogGauges:
    """The figures of the ledger as a whole. `endpoints` are shown even where nothing is open."""

    def __init__(self, read: Callable[[], Awaitable[Backlog]], endpoints: Iterable[str]) -> None:
        self._read = read
        self._endpoints = sorted(set(endpoints))
        self._backlog: Backlog | None = None
        self._read_at = float("-inf")
        self._reading = SingleFlight(self._renew, "ledger figures")

    async def refresh(self) -> None:
        """Read anew unless what is known is young; any number of callers share one reading."""
        if asyncio.get_running_loop().time() - self._read_at < KEPT:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._reading(), PATIENCE)

    async def close(self) -> None:
        """End a reading that is under way."""
        await self._reading.close()

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(LONGEST):
                self._backlog = await self._read()
            self._read_at = asyncio.get_running_loop().time()
        except (DatabaseUnavailable, TimeoutError):
            self._backlog = None
        except Exception:
            self._backlog = None
            log.exception("the metrics of the ledger cannot be read")

    def samples(self) -> Samples:
        """Return what was read last."""
        if (backlog := self._backlog) is None:
            return {}
        nothing = OpenWork(0, 0, 0.0)
        work = {(name,): nothing for name in self._endpoints} | {(name,): one for name, one in backlog.work.items()}
        waiting = dict.fromkeys(self._endpoints, 0) | backlog.backlog
        return {
            "mailing_open_batches": {labels: one.batches for labels, one in work.items()},
            "mailing_leased_batches": {labels: one.leased for labels, one in work.items()},
            "mailing_due_lag_seconds": {labels: one.lag for labels, one in work.items()},
            "mailing_backlog_messages": {(name,): n for name, n in waiting.items()},
            "mailing_mailings": {(state,): n for state, n in backlog.mailings.items()},
            "mailing_recheck_lag_seconds": {(): backlog.recheck_lag},
            "mailing_dispatch_paused": {(): backlog.stopped},
            "mailing_client_numbers_used_ratio": {(): backlog.numbers_used},
        }
