"""Writes outcomes into the database: one statement per finished batch, or every 200 ms.

Promises: an outcome is never dropped while its lease holds; while the database is away
outcomes are held and tried again, and since no batch is claimed then, they are bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.outcomes import Settlement
from dispatcher.model.records import DEFAULT_ENDPOINT
from dispatcher.ports import Clock, StorageUnavailable, WorkQueue

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds after which outcomes of an unfinished batch are written."""

_RETRY_FIRST, _RETRY_LAST = 0.05, 2.0


class Settler:
    """Settles leases; `run` serves `workers` at once.

    `closed` is called with each lease that is done with, and whether it was ours to the end;
    `recorded` with what was written, and how many seconds that took.
    """

    def __init__(
        self,
        queue: WorkQueue,
        clock: Clock,
        registry: LeaseRegistry,
        closed: Callable[[Lease, bool], None],
        recorded: Callable[[Settlement, float], None],
        workers: int = 3,
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._registry = registry
        self._closed = closed
        self._recorded = recorded
        self._workers = workers
        self._pending: asyncio.Queue[Lease] = asyncio.Queue()

    def put(self, lease: Lease) -> None:
        """Ask for the lease's unsaved outcomes to be written soon."""
        if not lease.waiting:
            lease.waiting = True
            self._pending.put_nowait(lease)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._serve())
            group.create_task(self._flush())

    async def _serve(self) -> None:
        while True:
            lease = await self._pending.get()
            # Whoever is writing this lease looks at `waiting` again before letting go of it.
            if not lease.writing:
                lease.writing = True
                while lease.waiting:
                    lease.waiting = False
                    await self._write(lease)
                lease.writing = False

    async def _flush(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_INTERVAL)
            for lease in self._registry.leases:
                self.put(lease)

    async def _write(self, lease: Lease) -> None:
        if lease not in self._registry.leases:
            return
        done = lease.left == 0
        outcomes, indices = lease.unsaved()
        if not outcomes and not done:
            return
        endpoint = lease.mailing.endpoint or DEFAULT_ENDPOINT
        held = await self._settle(Settlement(lease.batch, endpoint, outcomes, done, lease.kept() if done else ()))
        for index in indices:
            lease.saved[index] = 1
        if done or not held:
            lease.revoked = True
            self._registry.remove(lease)
            self._closed(lease, held)
        if not held:
            self._registry.lost += 1
            told = "batch %d of mailing %d was taken over: its lease ran out"
            log.warning(told, lease.batch.no, lease.mailing.id, extra={"mailing_id": lease.mailing.id})

    async def _settle(self, settlement: Settlement) -> bool:
        """Try until the database answers: an outcome is not lost because it is away."""
        pause = _RETRY_FIRST
        bare = False
        while True:
            try:
                began = self._clock.monotonic()
                held = await self._queue.settle(settlement)
                if held:
                    self._recorded(settlement, self._clock.monotonic() - began)
                return held
            except StorageUnavailable as error:
                log.warning("outcomes wait for the database: %s", error)
                await self._clock.sleep(pause)
                pause = min(pause * 2, _RETRY_LAST)
            except Exception:
                # What was sent must be known as sent, whatever the endpoint made us want to note of it.
                told = "outcomes of mailing %d are written without their details"
                mailing_id = settlement.batch.mailing_id
                log.exception(told, mailing_id, extra={"mailing_id": mailing_id})
                if bare:
                    await self._clock.sleep(_RETRY_LAST)
                settlement = settlement.bare()
                bare = True
