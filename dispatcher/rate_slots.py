"""Gets the moments at which messages with a rate may leave, for all rate limiters of a replica.

Asks the database as long as messages wait for one, for all limiters in one statement, and lets
the pools start workers when a moment comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping

from dispatcher.day_quota import DayQuota
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.model.endpoints import SlotRequest
from dispatcher.ports import Clock, RateSlotStore, StorageUnavailable
from dispatcher.rate_limiter import DatabaseTime, RateLimiter

log = logging.getLogger(__name__)

TICK = 0.003
"""Seconds between two rounds at the least: what came due meanwhile starts together."""

_LONGEST_WAIT = 1.0
_AWAY_PAUSE = 0.5
_REFUSED_PAUSE = 10.0

_Requests = dict[str, tuple[RateLimiter, SlotRequest]]
"""What is asked for, and for whom, by key."""


class RateSlots:
    """Serves the rate limiters of `pools` and of the mailings in them."""

    def __init__(self, store: RateSlotStore, clock: Clock, pools: Mapping[str, EndpointWorkers]) -> None:
        self._store = store
        self._clock = clock
        self._pools = pools
        self._time = DatabaseTime()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Note that messages wait for a rate limiter."""
        self._woken.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while any(demand for _, demand in self._limiters()) or self._paced():
                try:
                    await self._ask()
                except StorageUnavailable as error:
                    log.warning("rates wait for the database: %s", error)
                    await self._clock.sleep(_AWAY_PAUSE)
                for pool in self._pools.values():
                    pool.start()
                await self._clock.wait(self._woken, self._pause())
                self._woken.clear()

    def _limiters(self) -> Iterator[tuple[RateLimiter, int]]:
        """Yield every rate limiter with how many messages wait for it."""
        for pool in self._pools.values():
            if pool.limiter is not None:
                yield pool.limiter, _within(pool.quota, pool.waiting)
            for queue in pool.queue.queues.values():
                if queue.limiter is not None:
                    yield queue.limiter, _within(queue.quota, queue.waiting)

    def _paced(self) -> list[EndpointWorkers]:
        """Return the pools with messages that wait for their endpoint's patience to be over."""
        return [pool for pool in self._pools.values() if pool.waiting and not pool.pace.is_free]

    async def _ask(self) -> None:
        asked = self._clock.monotonic()
        requests: _Requests = {}
        for limiter, demand in self._limiters():
            if (request := limiter.request(asked, demand)) is not None:
                requests[limiter.key] = limiter, request
        if not requests:
            return
        try:
            await self._reserve(requests)
        except StorageUnavailable:
            raise
        except Exception:
            log.exception("rates are requested one by one, because the request for all of them failed")
            await self._reserve_each(requests)

    async def _reserve(self, requests: _Requests) -> None:
        asked = self._clock.monotonic()
        read_at, given = await self._store.reserve([request for _, request in requests.values()])
        self._time.learn(asked, self._clock.monotonic(), read_at)
        for key, slots in given.items():
            requests[key][0].add(self._time.local(slots.since), slots)

    async def _reserve_each(self, requests: _Requests) -> None:
        """Ask for each key by itself; one that cannot be asked for waits, and the others do not."""
        for key, (limiter, request) in requests.items():
            try:
                await self._reserve({key: (limiter, request)})
            except StorageUnavailable:
                raise
            except Exception as error:
                log.error("%s waits: there are no slots for %g a second: %s", key, request.rate, error)
                limiter.postpone(self._clock.monotonic() + _REFUSED_PAUSE)

    def _pause(self) -> float:
        now = self._clock.monotonic()
        moments = [limiter.next_at(now, demand) for limiter, demand in self._limiters() if demand]
        next_at = min(moments + [pool.pace.next_at(now) for pool in self._paced()], default=now)
        return max(TICK, min(next_at - now, _LONGEST_WAIT))


def _within(quota: DayQuota | None, waiting: int) -> int:
    """Return for how many messages moments are needed: those that a quota holds back need none."""
    return waiting if quota is None else min(waiting, quota.held)
