"""Keeps the pools' breakers in step with what all replicas know of the endpoints.

What a pool finds out is written to the database; what others found out is read from it. While
an endpoint is down, nothing of its messages is held here; when it asks for patience they are given
back, to be claimed anew as far as its pace goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from dispatcher.breaker import PROBE_FIRST, PROBE_MOST
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.ports import Clock, EndpointHealth, StorageUnavailable

log = logging.getLogger(__name__)

_MARGIN = 1.0
"""Seconds that a probe may take on top of the longest request."""

_PAUSE = 0.5
"""Seconds between two tries to report something."""


class BreakerSync:
    """Serves all pools of a replica."""

    def __init__(self, health: EndpointHealth, clock: Clock, registry: LeaseRegistry) -> None:
        self._health = health
        self._clock = clock
        self._registry = registry
        self._reports: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()

    async def run(self) -> None:
        """Report to the database what the pools found out, in order, until cancelled."""
        while True:
            report = await self._reports.get()
            while True:
                try:
                    await report()
                    break
                except StorageUnavailable as error:
                    log.warning("the state of an endpoint waits for the database: %s", error)
                    await self._clock.sleep(_PAUSE)

    def breaker_opened(self, pool: EndpointWorkers) -> None:
        """Take note that a pool's breaker opened: for this replica at once, for the others soon."""
        suspension, refusals = pool.breaker.suspension, pool.refusals
        log.log(
            logging.ERROR if suspension else logging.WARNING,
            "the endpoint %s is %s, nothing is sent there: %s",
            pool.name,
            f"suspended ({suspension.name})" if suspension else "down",
            pool.last_error,
            extra={"endpoint": pool.name},
        )
        if suspension and refusals.kind is not None:
            for lease in self._leases_of(pool):
                lease.excuse(refusals.since, refusals.kind)
        self._let_go(pool)
        self._reports.put_nowait(partial(self._share, pool))

    async def _share(self, pool: EndpointWorkers) -> None:
        """Close the endpoint for all replicas, unless another one has delivered something there just now."""
        breaker = pool.breaker
        if breaker.closed:
            return
        shared = await self._health.open_breaker(pool.name, PROBE_FIRST, pool.last_error, breaker.suspension)
        if not shared and not breaker.alone and not breaker.closed:
            log.warning("others reach the endpoint %s: it is down for this replica only", pool.name)
        breaker.alone = not shared and not breaker.closed

    def throttled(self, pool: EndpointWorkers, pause: float) -> None:
        """Take note that an endpoint asks for patience: no replica sends there for so many seconds."""
        log.info("the endpoint %s asks to slow down for %.1f s", pool.name, pause, extra={"endpoint": pool.name})
        self._let_go(pool)
        self._reports.put_nowait(partial(self._health.pause, pool.name, pause))

    def probe_ended(self, pool: EndpointWorkers, recovered: bool) -> None:
        """Take note of how a probe ended."""
        if recovered:
            log.info("the endpoint %s answers again", pool.name, extra={"endpoint": pool.name})
            self._reports.put_nowait(partial(self._health.close_breaker, pool.name))  # where it was open for all
        else:
            self._let_go(pool)
            self._reports.put_nowait(partial(self._probe_failed, pool))

    async def _probe_failed(self, pool: EndpointWorkers) -> None:
        if pool.breaker.alone:
            pool.breaker.wait_alone(self._clock.monotonic(), PROBE_FIRST, PROBE_MOST)
            await self._share(pool)
            return
        probe_in = await self._health.fail_probe(pool.name, PROBE_FIRST, PROBE_MOST, pool.last_error)
        if not pool.breaker.closed:
            pool.breaker.open(self._clock.monotonic(), probe_in)

    async def learn(self, pools: Collection[EndpointWorkers]) -> None:
        """Take over what others found out. Raise StorageUnavailable."""
        shared = await self._health.breakers([pool.name for pool in pools])
        now = self._clock.monotonic()
        for pool in pools:
            state = shared.get(pool.name)
            if state is not None and state.pause_in > 0 and pool.pace.learn(now, state.pause_in):
                self._let_go(pool)
            closed = pool.breaker.closed
            pool.breaker.learn(now, state)
            if closed and not pool.breaker.closed:
                self._let_go(pool)
            elif not closed and pool.breaker.closed:
                pool.limit.restart()

    async def probe(self, pool: EndpointWorkers) -> bool:
        """Ask whether this replica may try the endpoint, once it is time. Raise StorageUnavailable."""
        now = self._clock.monotonic()
        if pool.breaker.closed or pool.breaker.probing(now) or now < pool.breaker.probe_at:
            return False
        longest = pool.longest + _MARGIN
        if pool.breaker.alone:
            pool.breaker.probe(now, now + longest)
            return True
        if await self._health.begin_probe(pool.name, longest):
            pool.breaker.probe(now, now + longest)
            return True
        pool.breaker.open(now, PROBE_FIRST)
        return False

    def _let_go(self, pool: EndpointWorkers) -> None:
        """Give back what has not been begun."""
        for lease in self._leases_of(pool):
            if lease.release(lease.mailing):
                self._registry.settle_soon(lease)

    def _leases_of(self, pool: EndpointWorkers) -> list[Lease]:
        return [lease for lease in self._registry.leases if lease.mailing.endpoint == pool.name]
