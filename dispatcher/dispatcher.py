"""Puts the dispatcher together: planner, claimer, pools, settler, and how they stop.

claim → send → settle; the planner opens the work, the back-off keeps the idle quiet. All
replicas are equal: any number of dispatchers share one database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from dispatcher.breaker_sync import BreakerSync
from dispatcher.claimer import Claimer
from dispatcher.concurrency_limiter import FIRST, ConcurrencyLimit
from dispatcher.counters import Counters
from dispatcher.day_quotas import DayQuotas
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.heartbeat import Heartbeat, ReplicaStatus
from dispatcher.lease_watch import LeaseWatch
from dispatcher.leases import Lease, LeaseRegistry, LeaseTerms
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.settings import DispatchSettings, SettingOverrides
from dispatcher.open_work import OpenWorkList
from dispatcher.planner import Planner
from dispatcher.poll_backoff import LoopClock, PollBackoff
from dispatcher.ports import Clock, Sender, Storage, StorageUnavailable
from dispatcher.rate_slots import RateSlots
from dispatcher.recording import Recording
from dispatcher.settler import Settler
from dispatcher.tasks import cancel

log = logging.getLogger(__name__)

RESTART_PAUSE = 1.0
"""Seconds before a part that failed is restarted."""

SETTLE_MARGIN = 5.0
"""Seconds between the end of the last request of a lease and the end of the lease."""


def _most_in_flight(settings: DispatchSettings, endpoint: Endpoint) -> int:
    """Return how many messages may be under way at once: concurrency counts requests."""
    return min(settings.max_concurrency, endpoint.max_concurrency) * endpoint.messages_per_request


class Dispatcher:
    """Delivers what the database says, until stopped.

    `endpoints` are those it can send to; a mailing to any other waits.
    """

    def __init__(
        self,
        storage: Storage,
        endpoints: Sequence[tuple[Endpoint, Sender]],
        settings: DispatchSettings,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        clock = self._clock = clock or LoopClock()
        random = random or Random()  # noqa: S311 - jitter and fairness, not secrets
        self._settings = settings
        self._endpoints = [endpoint for endpoint, _ in endpoints]
        self._queue = storage.queue
        self._grace = 15.0
        self._stopping = asyncio.Event()
        self.counters = Counters(endpoint.name for endpoint in self._endpoints)
        self.registry = registry = LeaseRegistry()
        self.poll_backoff = PollBackoff(clock, settings.poll_min, settings.poll_max)
        self.pools = {
            endpoint.name: EndpointWorkers(endpoint, sender, registry, self._limit(endpoint), clock, random)
            for endpoint, sender in endpoints
        }
        self.recording = Recording(clock)
        self._settler = Settler(storage.queue, clock, registry, self.recording)
        self._breaker_sync = BreakerSync(storage.health, clock, registry)
        self._rate_slots = RateSlots(storage.rates, clock, self.pools)
        self._day_quotas = DayQuotas(storage.quotas, clock, registry, self.pools)
        self._lease_watch = LeaseWatch(storage.queue, registry, self.pools, self._breaker_sync, clock)
        segments = settings.max_sms_segments
        work = OpenWorkList(storage.queue, registry, self.recording, self.pools, clock, random, segments)
        self._claimer = Claimer(storage.queue, work, self._breaker_sync, registry, self._lease_terms(), clock)
        self._planner = Planner(storage.plan, self.poll_backoff, settings, clock, random, self._claimer)
        self._status = ReplicaStatus(clock, self.poll_backoff, registry, self.recording, self.pools)
        self._heartbeat = Heartbeat(storage.heartbeats, clock, self._status) if storage.heartbeats else None
        self._connect()

    def _limit(self, endpoint: Endpoint) -> ConcurrencyLimit:
        return ConcurrencyLimit(_most_in_flight(self._settings, endpoint), max(FIRST, endpoint.messages_per_request))

    def _lease_terms(self) -> LeaseTerms:
        longest = max((endpoint.total_timeout for endpoint in self._endpoints), default=0.0)
        length = max(self._settings.lease, 3 * longest + SETTLE_MARGIN)
        return LeaseTerms(length, length - longest - SETTLE_MARGIN)

    def _connect(self) -> None:
        """Connect the signals of the parts to those above them."""
        for pool in self.pools.values():
            pool.has_room_again.connect(self._claimer.room_again)
            pool.rate_blocked.connect(self._rate_slots.wake)
            pool.rate_blocked.connect(self._day_quotas.wake)
            pool.throttled.connect(self._breaker_sync.throttled)
            pool.breaker_opened.connect(self._breaker_sync.breaker_opened)
            pool.probe_ended.connect(self._breaker_sync.probe_ended)
        self._day_quotas.granted.connect(self._rate_slots.wake)
        self._settler.recorded.connect(self.counters.recorded)
        self._settler.recorded.connect(self._status.recorded)
        self._settler.closed.connect(self._closed)
        if self._heartbeat:
            self._settler.recorded.connect(self._heartbeat.recorded)
            self._heartbeat.overridden.connect(self._override)
            self._heartbeat.clock_set.connect(lambda _: self.hint())  # what fell due by another clock is looked at anew

    def hint(self) -> None:
        """Note that something changed: poll now instead of when it is time."""
        self.poll_backoff.hint()
        if self._heartbeat:
            self._heartbeat.hint()

    def renew(self, endpoint: Endpoint) -> None:
        """Use the secrets of this endpoint from the next request on."""
        self.pools[endpoint.name].renew(endpoint)

    def _override(self, overrides: SettingOverrides) -> None:
        """Take over what is set for all replicas."""
        settings = self._planner.settings = overrides.of(self._settings)
        self.poll_backoff.bound(settings.poll_min, settings.poll_max)
        for endpoint in self._endpoints:
            self.pools[endpoint.name].limit.bound(_most_in_flight(settings, endpoint))

    def _closed(self, lease: Lease) -> None:
        if lease.kept:
            self._claimer.wake()
        else:
            self._claimer.room_again()
        if lease.mailing.id not in self.registry.by_mailing:
            self._planner.drained(lease.mailing.id)

    async def run(self) -> None:
        """Dispatch until `stop` is called or the task is cancelled."""
        settling = asyncio.create_task(self._settler.run())
        taking = [
            asyncio.create_task(self._persist(work))
            for work in (
                self._planner.run,
                self._claimer.run,
                self._lease_watch.run,
                self._breaker_sync.run,
                self._rate_slots.run,
                self._day_quotas.run,
            )
        ]
        beating = asyncio.create_task(self._persist(self._heartbeat.run)) if self._heartbeat else None
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([settling, stopping, *taking], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            await cancel(stopping, *taking)
            await self._drain()
            await self._day_quotas.close()
            await cancel(settling, *([beating] if beating else []))
            if self._heartbeat:
                await self._heartbeat.leave()
            for pool in self.pools.values():
                await pool.close()

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Restart a loop that a bug ended: one mailing must not stop the others."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("a part of the dispatcher failed and is restarted")
                await self._clock.sleep(RESTART_PAUSE)

    async def _drain(self) -> None:
        """Release what nobody has begun to send, and wait for the rest to be settled."""
        for lease in self.registry.leases:
            if lease.release(lease.mailing):
                self.registry.settle_soon(lease)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                while self.registry.leases:
                    await self.registry.changed()
        with contextlib.suppress(StorageUnavailable):
            await self._queue.release_orphans(self.registry.batch_numbers)
        if self.registry.leases:
            log.warning("%d batches were not settled in time: their leases run out", len(self.registry.leases))

    async def stop(self, grace: float = 15.0) -> None:
        """Ask `run` to stop claiming, settle what is in flight within `grace` seconds, and end."""
        self._grace = grace
        self._stopping.set()
