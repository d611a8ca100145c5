"""Records outcomes in the database: one statement per finished batch, or every 200 ms.

Promises: an outcome is not dropped while its lease holds, nor after it while the database is
away; since no batch is claimed then, what is held is bounded. A lease whose outcomes cannot be
recorded is given up, and never holds up the others.
"""

from __future__ import annotations

import asyncio
import logging

from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.outcomes import Settlement
from dispatcher.ports import Clock, StorageUnavailable, WorkQueue
from dispatcher.signals import Signal

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds after which outcomes of an unfinished batch are written."""

_RETRY_FIRST, _RETRY_LAST = 0.05, 2.0


class Settler:
    """Settles the leases that wait for it in the registry, `workers` at once.

    Emits `recorded` with what was written and how many seconds that took, and `closed` with each
    lease that is done with.
    """

    def __init__(self, queue: WorkQueue, clock: Clock, registry: LeaseRegistry, workers: int = 3) -> None:
        self.recorded: Signal[Settlement, float] = Signal()
        self.closed: Signal[Lease] = Signal()
        self._queue = queue
        self._clock = clock
        self._registry = registry
        self._workers = workers

    async def run(self) -> None:
        """Settle until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._serve())
            group.create_task(self._flush())

    async def _flush(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_INTERVAL)
            for lease in self._registry.leases:
                self._registry.settle_soon(lease)

    async def _serve(self) -> None:
        pause = _RETRY_FIRST
        while True:
            lease = await self._registry.next_to_settle()
            if lease.writing:  # by another worker, which checks `waiting` again before it lets go
                continue
            try:
                await self._write(lease)
                pause = _RETRY_FIRST
            except StorageUnavailable as error:
                self._postpone(lease, error)
                await self._clock.sleep(pause)
                pause = min(pause * 2, _RETRY_LAST)

    async def _write(self, lease: Lease) -> None:
        """Write the lease's outcomes as long as there are new ones. Raise StorageUnavailable."""
        lease.writing = True
        try:
            while lease.waiting:
                lease.waiting = False
                settlement = lease.settlement() if lease in self._registry.leases else None
                if settlement is not None:
                    await self._settle(lease, settlement)
        finally:
            lease.writing = False

    async def _settle(self, lease: Lease, settlement: Settlement) -> None:
        began = self._clock.monotonic()
        try:
            held = await self._queue.settle(settlement)
        except StorageUnavailable:
            raise
        except Exception:
            self._refused(lease, settlement)
            return
        lease.written()
        if held:
            self.recorded.emit(settlement, self._clock.monotonic() - began)
        else:
            self._registry.lost += 1
            log.warning("%s was taken over: its lease ran out", _name(lease), extra=_facts(lease))
        if settlement.done or not held:
            self._registry.remove(lease)
            self.closed.emit(lease)

    def _refused(self, lease: Lease, settlement: Settlement) -> None:
        """Try once more without what the endpoint said, then give up: what was sent must be known as sent."""
        if not settlement.has_details:
            self._give_up(lease, "they cannot be recorded")
            return
        log.exception("outcomes of %s are written without their details", _name(lease), extra=_facts(lease))
        lease.leave_details_out()
        lease.waiting = True

    def _postpone(self, lease: Lease, error: StorageUnavailable) -> None:
        """Let the lease wait its turn again, unless it is over and the database has answered others since."""
        if self._registry.answered_at > lease.held_until:
            self._give_up(lease, "the lease is over")
        else:
            log.warning("outcomes wait for the database: %s", error)
            lease.waiting = False  # what it waited for meanwhile may have been left to this worker
            self._registry.settle_soon(lease)

    def _give_up(self, lease: Lease, why: str) -> None:
        log.error("outcomes of %s are given up: %s", _name(lease), why, exc_info=True, extra=_facts(lease))
        self._registry.lost += 1
        self._registry.give_up(lease)
        self.closed.emit(lease)


def _name(lease: Lease) -> str:
    return f"batch {lease.batch.no} of mailing {lease.mailing.id}"


def _facts(lease: Lease) -> dict[str, int]:
    return {"mailing_id": lease.mailing.id}
