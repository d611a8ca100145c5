"""Puts the dispatcher together: planner, claimer, pools, settler, and how they stop.

claim → send → settle; the planner feeds the front, the pacer keeps the idle quiet. All
replicas are equal: any number of dispatchers share one database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from dispatcher.breaker_sync import BreakerSync
from dispatcher.claimer import Claimer
from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.heartbeat import Heartbeat
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.records import DispatchSettings, Endpoint, SettingOverrides
from dispatcher.planner import Planner
from dispatcher.poll_backoff import LoopClock, PollBackoff
from dispatcher.ports import Clock, Ledger, Replicas, Sender, Settled, StorageUnavailable
from dispatcher.rate_slots import RateSlots
from dispatcher.replica_status import ReplicaStatus
from dispatcher.settler import Settler

log = logging.getLogger(__name__)

RESTART_PAUSE = 1.0
"""Seconds before a part that failed begins anew."""

SETTLE_MARGIN = 5.0
"""Seconds between the end of the last request of a lease and the end of the lease."""


class Dispatcher:
    """Delivers what the ledger says, until stopped.

    `endpoints` maps a mailing's endpoint name ('' is the default one) to where and how it is
    reached. A mailing whose endpoint is not among them waits. Without `replicas` nobody sees
    this one, and it keeps the settings it was started with.
    """

    def __init__(
        self,
        ledger: Ledger,
        endpoints: Mapping[str, tuple[Endpoint, Sender]],
        settings: DispatchSettings,
        clock: Clock | None = None,
        random: Random | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._clock = clock or LoopClock()
        self._random = random or Random()  # noqa: S311 - jitter and fairness, not secrets
        self._registry = LeaseRegistry()
        self._ledger = ledger
        self.poll_backoff = PollBackoff(self._clock, settings.poll_min, settings.poll_max)
        longest = max((endpoint.total_timeout for endpoint, _ in endpoints.values()), default=0.0)
        lease = max(settings.lease, 3 * longest + SETTLE_MARGIN)
        self._settler = Settler(ledger, self._clock, self._registry, self._closed, self._settled)
        self._breaker_sync = BreakerSync(ledger, self._clock, self._registry, self._settler.put)
        pools = {
            endpoint.name: self._pool(endpoint, sender, settings.max_concurrency)
            for endpoint, sender in endpoints.values()
        }
        self._pools = {name: pools[endpoint.name] for name, (endpoint, _) in endpoints.items()}
        self._rate_slots = RateSlots(ledger, self._clock, list(pools.values()))
        self._claimer = Claimer(
            ledger=ledger,
            pools=self._pools,
            breaker_sync=self._breaker_sync,
            registry=self._registry,
            lease=lease,
            sending=lease - longest - SETTLE_MARGIN,
            clock=self._clock,
            random=self._random,
            finished=self._settler.put,
        )
        self._planner = Planner(ledger, self.poll_backoff, settings, self._clock, self._random, self._claimer.wake)
        self._settings = settings
        self._bounds = [(pools[endpoint.name].limit, endpoint.max_concurrency) for endpoint, _ in endpoints.values()]
        self._replica_status = ReplicaStatus(self._clock, self.poll_backoff, self._registry, self._pools)
        self._heartbeat = (
            Heartbeat(replicas, self._clock, self._replica_status, self._apply_overrides) if replicas else None
        )
        self._grace = 15.0
        self._stopping = asyncio.Event()

    def _pool(self, endpoint: Endpoint, sender: Sender, most: int) -> EndpointWorkers:
        limit = ConcurrencyLimit(min(most, endpoint.max_concurrency))
        return EndpointWorkers(endpoint, sender, self._clock, limit, self._random, keeper=self)

    @property
    def pools(self) -> list[EndpointWorkers]:
        """The ways to the endpoints, one each."""
        return list(dict.fromkeys(self._pools.values()))

    @property
    def leases(self) -> int:
        """How many batches it holds."""
        return len(self._registry.leases)

    # What the pools report: see `sender.Keeper`.

    def finished(self, lease: Lease) -> None:
        """Settle the lease soon."""
        self._settler.put(lease)

    def hungry(self) -> None:
        """Claim for a pool that has room."""
        self._claimer.wake()

    def rated(self) -> None:
        """Messages wait for what their rates allow."""
        self._rate_slots.wake()

    def tripped(self, pool: EndpointWorkers) -> None:
        """Share that a breaker opened."""
        self._breaker_sync.tripped(pool)
        self._claimer.wake()

    def probed(self, pool: EndpointWorkers, recovered: bool) -> None:
        """Share how a probe ended."""
        self._breaker_sync.probed(pool, recovered)
        self._claimer.wake()

    def hint(self) -> None:
        """Note that something changed: it is looked at now instead of at the next poll."""
        self.poll_backoff.hint()
        if self._heartbeat:
            self._heartbeat.hint()

    def _apply_overrides(self, overrides: SettingOverrides) -> None:
        """Take over what is set for all replicas."""
        settings = self._planner.settings = overrides.of(self._settings)
        self.poll_backoff.bound(settings.poll_min, settings.poll_max)
        for limit, most in self._bounds:
            limit.bound(min(settings.max_concurrency, most))

    def _settled(self, endpoint: str, settled: list[Settled]) -> None:
        self._replica_status.note(endpoint, settled)
        if self._heartbeat:
            self._heartbeat.work()

    def _closed(self, lease: Lease, held: bool) -> None:
        self._claimer.wake()
        if lease.mailing.id not in self._registry.by_mailing:
            self._planner.drained(lease.mailing.id)

    async def run(self) -> None:
        """Dispatch until `stop` is called or the task is cancelled."""
        settling = asyncio.create_task(self._settler.run())
        taking = [
            asyncio.create_task(self._persist(work))
            for work in (
                self._planner.run,
                self._claimer.run,
                self._claimer.watch,
                self._breaker_sync.run,
                self._rate_slots.run,
            )
        ]
        beating = asyncio.create_task(self._persist(self._heartbeat.run)) if self._heartbeat else None
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([settling, stopping, *taking], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            await _end(stopping, *taking)
            await self._drain()
            await _end(settling, *([beating] if beating else []))
            if self._heartbeat:
                await self._heartbeat.leave()
            for pool in set(self._pools.values()):
                await pool.close()

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin a loop anew when a defect ended it: one mailing must not stop the others."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("a part of the dispatcher failed and begins anew")
                await self._clock.sleep(RESTART_PAUSE)

    async def _drain(self) -> None:
        """Release what nobody has begun to send, and wait for the rest to be settled."""
        for lease in self._registry.leases:
            if lease.release(lease.mailing):
                self._settler.put(lease)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                while self._registry.leases:
                    await self._registry.changed()
        with contextlib.suppress(StorageUnavailable):
            await self._ledger.release_orphans([lease.batch.no for lease in self._registry.leases])
        if self._registry.leases:
            log.warning("%d batches were not settled in time: their leases run out", len(self._registry.leases))

    async def stop(self, grace: float = 15.0) -> None:
        """Ask `run` to stop claiming, settle what is in flight within `grace` seconds, and end."""
        self._grace = grace
        self._stopping.set()


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
