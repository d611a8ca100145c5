"""The heartbeat of a replica: reports that it is alive and how it does, and reads what is set for all.

One statement does both. It is made every second while there is work, rarely while there is
none, and at once after a hint. Each beat promises the next one, so a replica that died is
missed within seconds; one that stops in order says so. Nothing else waits for it.

The status is plain values, read from public attributes of the other parts once per beat. Its
readers may be of another version. Times are seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from dispatcher.endpoint_stats import EndpointStats, summarize
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.leases import LeaseRegistry
from dispatcher.model.outcomes import Settlement
from dispatcher.model.settings import SettingOverrides
from dispatcher.poll_backoff import PollBackoff
from dispatcher.ports import Clock, Heartbeats, StorageUnavailable
from dispatcher.recording import Recording
from dispatcher.signals import Signal

log = logging.getLogger(__name__)

BUSY_INTERVAL = 0.75
"""Seconds between two beats while there is work: a setting holds everywhere within a second."""

IDLE_INTERVAL = 4.0
"""Seconds between two beats while there is none."""

BUSY_MARGIN, IDLE_MARGIN = 2.5, 0.5
"""Seconds that a beat may be late. A busy event loop and a busy database need more of them."""

MOST_MAILINGS = 100
"""The most mailings that are named."""

CLOCK_STEP = 2.0
"""Seconds by which the database's clock must differ from what was expected: less may be a slow answer."""

CANNOT_RECORD = "outcomes cannot be recorded"
"""The reason of a replica that claims less than it could, or nothing."""

HINTED_INTERVAL = 0.1
"""Seconds between two beats at the least, however many hints there are."""


class ReplicaStatus:
    """What one replica reports of itself. `pools` are by endpoint."""

    def __init__(
        self,
        clock: Clock,
        poll_backoff: PollBackoff,
        registry: LeaseRegistry,
        recording: Recording,
        pools: Mapping[str, EndpointWorkers],
    ) -> None:
        self._clock = clock
        self._poll_backoff = poll_backoff
        self._registry = registry
        self._recording = recording
        self._pools = pools
        self._stats = {name: EndpointStats() for name in pools}

    @property
    def busy(self) -> bool:
        """Whether there are leases to work on."""
        return bool(self._registry.leases)

    def recorded(self, settlement: Settlement, seconds: float) -> None:
        """Take in what was written just now."""
        if (stats := self._stats.get(settlement.endpoint)) is not None:
            stats.note(self._clock.monotonic(), settlement)

    def status(self) -> dict[str, Any]:
        """Return how the replica does."""
        pools = self._pools.values()
        overall = summarize(self._clock.monotonic(), list(self._stats.values()))
        return {
            "in_flight": sum(pool.in_flight for pool in pools),
            "concurrency_limit": sum(pool.limit.value for pool in pools),
            "poll_interval": self._poll_backoff.interval,
            "poll_reason": CANNOT_RECORD if self._recording.failing else self._poll_backoff.reason,
            "backlog": sum(pool.waiting for pool in pools),
            "rate": overall.rate,
            "latency_p50": overall.latency_p50,
            "latency_p99": overall.latency_p99,
            "mailing_ids": sorted(self._registry.by_mailing)[:MOST_MAILINGS],
            "endpoints": [self._endpoint(name) for name in sorted(self._pools)],
        }

    def _endpoint(self, name: str) -> dict[str, Any]:
        pool, stats, now = self._pools[name], self._stats[name], self._clock.monotonic()
        own = summarize(now, [stats])
        return {
            "name": name,
            "in_flight": pool.in_flight,
            "concurrency_limit": pool.limit.value,
            "failure_ratio": own.failure_ratio,
            "last_error": own.last_error,
            "breaker": int(pool.breaker.state),
            "delivered_ago": None if stats.delivered_at is None else now - stats.delivered_at,
        }


class Heartbeat:
    """Beats for one replica.

    Emits `overridden` when other settings than before are in force, and `clock_set` when the
    database's clock was set, by how many seconds.
    """

    def __init__(self, heartbeats: Heartbeats, clock: Clock, status: ReplicaStatus) -> None:
        self.clock_set: Signal[float] = Signal()
        self.overridden: Signal[SettingOverrides] = Signal()
        self._heartbeats = heartbeats
        self._clock = clock
        self._status = status
        self._woken = asyncio.Event()
        self._resting = False
        self._overrides: SettingOverrides | None = None
        self._offset: float | None = None

    def hint(self) -> None:
        """Note that settings may have been changed."""
        self._woken.set()

    def recorded(self, settlement: Settlement, seconds: float) -> None:
        """Note that there is work: beats come more often again."""
        if self._resting:
            self._woken.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        born = self._clock.monotonic()
        while True:
            began = self._clock.monotonic()
            busy = self._status.busy
            interval, margin = (BUSY_INTERVAL, BUSY_MARGIN) if busy else (IDLE_INTERVAL, IDLE_MARGIN)
            self._woken.clear()
            try:
                read_at, overrides = await self._heartbeats.beat(began - born, interval + margin, self._status.status())
            except StorageUnavailable as error:
                log.warning("the heartbeat of this replica cannot be written, the database is away: %s", error)
                interval = BUSY_INTERVAL
            else:
                self._compare_clocks(began, self._clock.monotonic(), read_at)
                self._take_over(overrides)
            await self._clock.sleep(HINTED_INTERVAL)
            self._resting = not busy
            await self._clock.wait(self._woken, interval - (self._clock.monotonic() - began))

    def _compare_clocks(self, asked: float, answered: float, read_at: float) -> None:
        """Notice that the database's clock, read between `asked` and `answered`, went on otherwise than ours."""
        offset, before = read_at - (asked + answered) / 2, self._offset
        self._offset = offset
        if before is not None and abs(offset - before) > CLOCK_STEP + (answered - asked) / 2:
            log.warning("the database's clock was set by %+.1f s", offset - before)
            self.clock_set.emit(offset - before)

    def _take_over(self, overrides: SettingOverrides) -> None:
        if overrides != self._overrides:
            self._overrides = overrides
            self.overridden.emit(overrides)
            self._woken.set()  # so that it is soon seen that they hold

    async def leave(self) -> None:
        """Note that this replica ends."""
        try:
            await self._heartbeats.leave()
        except StorageUnavailable as error:
            log.warning("other replicas notice the end of this one only when its heartbeat is overdue: %s", error)
