"""How an endpoint answers at present: rate, failures, latencies, counted as outcomes settle.

Fed once per settle, not per request: some hundredths of a microsecond per message. Pure:
time comes in as an argument, in seconds of the monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from dispatcher.model.outcomes import Outcome, Settlement
from dispatcher.model.words import error_words

WINDOW = 5.0
"""Seconds over which rate and failures are taken."""

SAMPLES = 1000
"""Requests of which the latencies are kept."""

_SLOT = 0.25
_PER_SETTLE = 50
"""The most latencies of one settle: requests of one time are much alike."""


class StatsSummary(NamedTuple):
    """`rate` counts deliveries a second, `failure_ratio` is from 0 to 1, latencies are in seconds, None without any."""

    rate: float
    failure_ratio: float
    latency_p50: float | None
    latency_p99: float | None
    last_error: str


class EndpointStats:
    """The figures of one endpoint, or with `sum` of several."""

    def __init__(self) -> None:
        self.latencies: deque[int] = deque(maxlen=SAMPLES)
        self.last_error = ""
        self.delivered_at: float | None = None
        self._slots: deque[list[float]] = deque()

    def note(self, now: float, settlement: Settlement) -> None:
        """Take in what was recorded just now."""
        durations = settlement.attempt_durations_ms
        if not durations:
            return
        if not self._slots or now - self._slots[-1][0] >= _SLOT:
            self._slots.append([now, 0, 0])
        self._slots[-1][1] += settlement.delivered
        if settlement.delivered:
            self.delivered_at = now
        self._slots[-1][2] += len(durations)
        step = -(-len(durations) // _PER_SETTLE)
        self.latencies.extend(ms for ms in durations[::step] if ms is not None)
        if settlement.failed:
            self.last_error = error_of(settlement.failed[-1][2])

    def counts(self, now: float) -> tuple[float, float]:
        """Return deliveries and attempts of the last WINDOW seconds."""
        while self._slots and now - self._slots[0][0] > WINDOW:
            self._slots.popleft()
        return sum(slot[1] for slot in self._slots), sum(slot[2] for slot in self._slots)


def summarize(now: float, all_stats: Sequence[EndpointStats]) -> StatsSummary:
    """Return the statistics of several endpoints together."""
    counts = [stats.counts(now) for stats in all_stats]
    delivered, attempts = sum(one for one, _ in counts), sum(one for _, one in counts)
    latencies = sorted(latency for stats in all_stats for latency in stats.latencies)
    errors = [stats.last_error for stats in all_stats if stats.last_error]
    return StatsSummary(
        rate=delivered / WINDOW,
        failure_ratio=1 - delivered / attempts if attempts else 0.0,
        latency_p50=_quantile(latencies, 0.50),
        latency_p99=_quantile(latencies, 0.99),
        last_error=errors[-1] if errors else "",
    )


def _quantile(ordered: Sequence[int], share: float) -> float | None:
    """Return the smallest latency that `share` of them do not exceed, in seconds."""
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)] / 1000 if ordered else None


def error_of(outcome: Outcome) -> str:
    """Return how the request of a failed attempt ended in a few words, such as "gateway error (HTTP 503)"."""
    assert outcome.failure is not None
    return error_words(outcome.failure.error_class.name, outcome.endpoint_status, outcome.endpoint_code)
