"""Gets the permits of daily quotas, for all that have one on a replica, and returns those that are not needed.

Where a day is full, the messages that wait here go back to open work, and nothing of them is claimed until there are
permits again. Does nothing at all where there is no quota.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dispatcher.day_quota import DayQuota
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.quotas import QuotaRequest
from dispatcher.ports import Clock, DayQuotaStore, StorageUnavailable
from dispatcher.signals import Signal

log = logging.getLogger(__name__)

TICK = 0.005
"""Seconds between two rounds at the least."""

_LONGEST_WAIT = 1.0
_AWAY_PAUSE = 0.5
_REFUSED_PAUSE = 10.0


class _Use(NamedTuple):
    """A quota, how many messages wait for it, and the leases that hold them."""

    quota: DayQuota
    demand: int
    leases: Sequence[Lease]
    pool: EndpointWorkers


class DayQuotas:
    """Serves the quotas of `pools` and of the mailings in them. Emits `granted` when messages may leave again."""

    def __init__(
        self, store: DayQuotaStore, clock: Clock, registry: LeaseRegistry, pools: Mapping[str, EndpointWorkers]
    ) -> None:
        self.granted: Signal[()] = Signal()
        self._store = store
        self._clock = clock
        self._registry = registry
        self._pools = pools
        self._woken = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Note that messages wait for a quota."""
        self._woken.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while any(use.quota.is_busy(self._clock.monotonic(), use.demand) for use in self._uses()):
                try:
                    await self._give_back()
                    await self._ask()
                    self._let_go()
                except StorageUnavailable as error:
                    log.warning("daily quotas wait for the database: %s", error)
                    await self._clock.sleep(_AWAY_PAUSE)
                self._tidy()
                await self._clock.wait(self._woken, self._pause())
                self._woken.clear()

    async def close(self) -> None:
        """Return all permits that are left, those that were asked for last included."""
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)
        for use in self._uses():
            use.quota.give_up()
        with contextlib.suppress(StorageUnavailable):
            await self._give_back()

    def _uses(self) -> Iterator[_Use]:
        for pool in self._pools.values():
            queues = pool.queue.queues
            if pool.quota is not None:
                leases = [lease for queue in queues.values() for lease in queue.leases]
                yield _Use(pool.quota, pool.waiting, leases, pool)
            for mailing_id, quota in list(pool.queue.quotas.items()):
                queue = queues.get(mailing_id)
                yield _Use(quota, queue.waiting if queue else 0, list(queue.leases) if queue else [], pool)

    async def _give_back(self) -> None:
        """Return what nobody needs, once: where the answer is lost, it may have been returned."""
        now = self._clock.monotonic()
        asked = [use.quota.unneeded(now, use.demand) for use in self._uses()]
        if unneeded := [back for back in asked if back is not None]:
            await self._store.give_back(unneeded)

    async def _ask(self) -> None:
        for use in list(self._uses()):
            if (request := use.quota.request(self._clock.monotonic(), use.demand)) is not None:
                # Goes on when this ends meanwhile: what the database has given out by then would be lost for the day.
                self._asking = asyncio.create_task(self._ask_for(use, request), name="permits of a day")
                await asyncio.shield(self._asking)

    async def _ask_for(self, use: _Use, request: QuotaRequest) -> None:
        asked = self._clock.monotonic()
        try:
            grant = await self._store.permit(request)
        except StorageUnavailable:
            raise
        except Exception as error:
            log.error("%s waits: there are no permits for %s: %s", request.key, request.limit, error)
            use.quota.postpone(self._clock.monotonic() + _REFUSED_PAUSE)
            return
        use.quota.add(asked, self._clock.monotonic(), grant)
        if not use.quota.is_full():
            self.granted.emit()
            use.pool.has_room_again.emit()
            use.pool.start()

    def _let_go(self) -> None:
        """Put back into open work what waits for a day that is full; what has a permit goes on."""
        for use in self._uses():
            if use.quota.is_full():
                for lease in use.leases:
                    if lease.keep_untaken():
                        self._registry.settle_soon(lease)

    def _tidy(self) -> None:
        """Forget the quotas of mailings of which nothing is here."""
        now = self._clock.monotonic()
        for pool in self._pools.values():
            for mailing_id, quota in list(pool.queue.quotas.items()):
                if mailing_id not in pool.queue.queues and not quota.is_busy(now, 0):
                    del pool.queue.quotas[mailing_id]

    def _pause(self) -> float:
        now = self._clock.monotonic()
        next_at = min((use.quota.next_at(now, use.demand) for use in self._uses()), default=now)
        return max(TICK, min(next_at - now, _LONGEST_WAIT))
