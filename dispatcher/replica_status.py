"""How a replica does, as plain values: what its beats tell and operators see.

Reads public attributes of the other parts only, once per beat. Times are seconds. Whoever
reads the values may be of another version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.endpoint_stats import EndpointStats, summarize
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.leases import LeaseRegistry
from dispatcher.poll_backoff import PollBackoff
from dispatcher.ports import Clock, Settled

MOST_MAILINGS = 100
"""The most mailings that are named."""


class ReplicaStatus:
    """What one replica can tell of itself. `pools` are those by the names that mailings have for their endpoints."""

    def __init__(
        self, clock: Clock, poll_backoff: PollBackoff, registry: LeaseRegistry, pools: Mapping[str, EndpointWorkers]
    ) -> None:
        self._clock = clock
        self._poll_backoff = poll_backoff
        self._registry = registry
        self._pools = {pool.name: pool for pool in pools.values()}
        self._stats = {name: EndpointStats() for name in self._pools}
        self._by_endpoint = {alias: self._stats[pool.name] for alias, pool in pools.items()}

    @property
    def busy(self) -> bool:
        """Whether there are leases to work on."""
        return bool(self._registry.leases)

    def note(self, endpoint: str, settled: Sequence[Settled]) -> None:
        """Take in what was recorded just now of messages to an endpoint."""
        if (stats := self._by_endpoint.get(endpoint)) is not None:
            stats.note(self._clock.monotonic(), settled)

    def status(self) -> dict[str, Any]:
        """Return how the replica does."""
        pools = self._pools.values()
        overall = summarize(self._clock.monotonic(), list(self._stats.values()))
        return {
            "in_flight": sum(pool.active for pool in pools),
            "concurrency_limit": sum(pool.limit.value for pool in pools),
            "poll_interval": self._poll_backoff.interval,
            "poll_reason": self._poll_backoff.reason,
            "backlog": sum(pool.waiting for pool in pools),
            "rate": overall.rate,
            "latency_p50": overall.latency_p50,
            "latency_p99": overall.latency_p99,
            "mailing_ids": sorted(self._registry.by_mailing)[:MOST_MAILINGS],
            "endpoints": [self._endpoint(name) for name in sorted(self._pools)],
        }

    def _endpoint(self, name: str) -> dict[str, Any]:
        pool = self._pools[name]
        own = summarize(self._clock.monotonic(), [self._stats[name]])
        return {
            "name": name,
            "in_flight": pool.active,
            "concurrency_limit": pool.limit.value,
            "failure_ratio": own.failure_ratio,
            "last_error": own.last_error,
        }
