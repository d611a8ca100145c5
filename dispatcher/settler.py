"""Records outcomes in the database: one statement per finished batch, or every 200 ms.

Promises: an outcome is held until it is recorded, or until another replica has taken its batch
over. A settlement that fails is put back with a time and holds up no other; since nothing is
claimed while recording fails, what is held is bounded.
"""

from __future__ import annotations

import asyncio
import logging

from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.outcomes import Settlement
from dispatcher.ports import Clock, StorageUnavailable, WorkQueue
from dispatcher.recording import Recording
from dispatcher.signals import Signal

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds after which outcomes of an unfinished batch are written."""

_RETRY_FIRST, _RETRY_LAST = 0.2, 2.0
"""Seconds until a settlement that failed is tried again: the wait doubles."""

_LOG_INTERVAL = 60.0
"""Seconds between two words in the log about outcomes that still wait."""


class Settler:
    """Settles the leases that wait for it in the registry, `workers` at once.

    Tells `recording` how that ends. Emits `recorded` with what was written and how many seconds
    that took, and `closed` with each lease that is done with.
    """

    def __init__(
        self, queue: WorkQueue, clock: Clock, registry: LeaseRegistry, recording: Recording, workers: int = 3
    ) -> None:
        self.recorded: Signal[Settlement, float] = Signal()
        self.closed: Signal[Lease] = Signal()
        self._queue = queue
        self._clock = clock
        self._registry = registry
        self._recording = recording
        self._workers = workers
        self._logged_at = float("-inf")

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
        while True:
            lease = await self._registry.next_to_settle()
            if not lease.writing:  # by another worker, which checks `waiting` again before it lets go
                await self._write(lease)

    async def _write(self, lease: Lease) -> None:
        """Write the lease's outcomes as long as there are new ones, unless it is to wait."""
        lease.writing = True
        try:
            while lease.waiting:
                lease.waiting = False
                if self._clock.monotonic() < lease.settle_at:  # the next flush asks again
                    return
                settlement = lease.settlement() if lease in self._registry.leases else None
                if settlement is not None:
                    await self._settle(lease, settlement)
        finally:
            lease.writing = False

    async def _settle(self, lease: Lease, settlement: Settlement) -> None:
        began = self._clock.monotonic()
        try:
            held = await self._queue.settle(settlement)
        except StorageUnavailable as error:
            self._recording.unavailable()
            self._postpone(lease, f"wait for the database: {error}")
            return
        except Exception:
            self._refused(lease, settlement)
            return
        self._recording.recorded(lease.mailing.id)
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
        """Try once more without what the endpoint said, then wait: what was sent must be known as sent."""
        if settlement.has_details:
            log.exception("outcomes of %s are written without their details", _name(lease), extra=_facts(lease))
            lease.leave_details_out()
            lease.waiting = True
            return
        self._recording.refused(lease.mailing.id)
        if not lease.postponed:
            log.exception("outcomes of %s cannot be recorded", _name(lease), extra=_facts(lease))
        self._postpone(lease, "cannot be recorded: nothing more of the mailing is claimed")

    def _postpone(self, lease: Lease, what: str) -> None:
        """Let the lease wait for longer and longer; others take their turn meanwhile."""
        now = self._clock.monotonic()
        lease.postpone(now, _RETRY_FIRST, _RETRY_LAST)
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            log.warning("outcomes of %s %s", _name(lease), what, extra=_facts(lease))


def _name(lease: Lease) -> str:
    return f"batch {lease.batch.no} of mailing {lease.mailing.id}"


def _facts(lease: Lease) -> dict[str, int]:
    return {"mailing_id": lease.mailing.id}
