"""How a replica does, as plain values: what its beats tell and operators see.

Reads public attributes of the other parts only, once per beat. Times are seconds. Whoever
reads the values may be of another version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.endpoint_stats import Meter, figures
from dispatcher.endpoint_workers import Lane
from dispatcher.leases import Book
from dispatcher.poll_backoff import Pacer
from dispatcher.ports import Clock, Settled

MOST_MAILINGS = 100
"""The most mailings that are named."""


class Vitals:
    """What one replica can tell of itself. `lanes` are those by the names that mailings have for their endpoints."""

    def __init__(self, clock: Clock, pacer: Pacer, book: Book, lanes: Mapping[str, Lane]) -> None:
        self._clock = clock
        self._pacer = pacer
        self._book = book
        self._lanes = {lane.name: lane for lane in lanes.values()}
        self._meters = {name: Meter() for name in self._lanes}
        self._by_endpoint = {alias: self._meters[lane.name] for alias, lane in lanes.items()}

    @property
    def busy(self) -> bool:
        """Whether there are leases to work on."""
        return bool(self._book.leases)

    def note(self, endpoint: str, settled: Sequence[Settled]) -> None:
        """Takes in what was recorded just now of messages to an endpoint."""
        if (meter := self._by_endpoint.get(endpoint)) is not None:
            meter.note(self._clock.monotonic(), settled)

    def status(self) -> dict[str, Any]:
        """Returns how the replica does."""
        lanes = self._lanes.values()
        overall = figures(self._clock.monotonic(), list(self._meters.values()))
        return {
            "in_flight": sum(lane.active for lane in lanes),
            "concurrency_limit": sum(lane.limit.value for lane in lanes),
            "poll_interval": self._pacer.interval,
            "poll_reason": self._pacer.reason,
            "backlog": sum(lane.waiting for lane in lanes),
            "rate": overall.rate,
            "latency_p50": overall.latency_p50,
            "latency_p99": overall.latency_p99,
            "mailing_ids": sorted(self._book.by_mailing)[:MOST_MAILINGS],
            "endpoints": [self._endpoint(name) for name in sorted(self._lanes)],
        }

    def _endpoint(self, name: str) -> dict[str, Any]:
        lane = self._lanes[name]
        own = figures(self._clock.monotonic(), [self._meters[name]])
        return {
            "name": name,
            "in_flight": lane.active,
            "concurrency_limit": lane.limit.value,
            "failure_ratio": own.failure_ratio,
            "last_error": own.last_error,
        }
