"""Writes outcomes into the ledger: one statement per finished batch, or every 200 ms.

Promises: an outcome is never dropped while its lease holds; while the database is away
outcomes are held and tried again, and since no batch is claimed then, they are bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dispatcher import retry_policy as policy
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.records import DEFAULT_ENDPOINT
from dispatcher.ports import Clock, Ledger, Settled, StorageUnavailable

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds after which outcomes of an unfinished batch are written."""

_RETRY_FIRST, _RETRY_LAST = 0.05, 2.0


class Settler:
    """Settles leases; `run` serves `workers` at once.

    `closed` is called with each lease that is done with, and whether it was ours to the end;
    `noted` with the name of the mailing's endpoint and what was recorded.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        registry: LeaseRegistry,
        closed: Callable[[Lease, bool], None],
        noted: Callable[[str, list[Settled]], None],
        workers: int = 3,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._registry = registry
        self._closed = closed
        self._noted = noted
        self._workers = workers
        self._queue: asyncio.Queue[Lease] = asyncio.Queue()

    def put(self, lease: Lease) -> None:
        """Ask for the lease's unsaved outcomes to be written soon."""
        if not lease.waiting:
            lease.waiting = True
            self._queue.put_nowait(lease)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._serve())
            group.create_task(self._flush())

    async def _serve(self) -> None:
        while True:
            lease = await self._queue.get()
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
        held = await self._settle(lease, outcomes, done, lease.kept() if done else [])
        if held:
            self._noted(lease.mailing.endpoint, outcomes)
        for index in indices:
            lease.saved[index] = 1
        if done or not held:
            lease.revoked = True
            self._registry.remove(lease)
            self._closed(lease, held)
        if not held:
            told = "batch %d of mailing %d was taken over: its lease ran out"
            log.warning(told, lease.batch.no, lease.mailing.id, extra={"mailing_id": lease.mailing.id})

    async def _settle(self, lease: Lease, outcomes: list[Settled], done: bool, kept: list[int]) -> bool:
        """Try until the database answers: an outcome is not lost because it is away."""
        endpoint = lease.mailing.endpoint or DEFAULT_ENDPOINT
        pause = _RETRY_FIRST
        bare = False
        while True:
            try:
                return await self._ledger.settle(lease.batch, endpoint, outcomes, done, kept)
            except StorageUnavailable as error:
                log.warning("outcomes wait for the database: %s", error)
                await self._clock.sleep(pause)
                pause = min(pause * 2, _RETRY_LAST)
            except Exception:
                # What was sent must be known as sent, whatever the endpoint made us want to note of it.
                told = "outcomes of mailing %d are written without their details"
                log.exception(told, lease.mailing.id, extra={"mailing_id": lease.mailing.id})
                if bare:
                    await self._clock.sleep(_RETRY_LAST)
                outcomes = [(client, before, policy.bare(outcome)) for client, before, outcome in outcomes]
                bare = True
