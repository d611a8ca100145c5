"""What a dispatcher process did since it began: plain counters that only grow.

Fed once per settle, from what was recorded, so that sending a message costs nothing here.
Names and formats of metrics are the readers' business.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dispatcher.model.outcomes import Settlement
from dispatcher.model.states import ErrorClass, Status

ATTEMPT_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of how long requests took, in seconds. They are known to the millisecond."""

SETTLE_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of how long settles took, in seconds."""


class Histogram:
    """Values in ranges. `counts` has one entry per upper bound and one for what is above them all."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_milliseconds(self, times: Mapping[int | None, int]) -> None:
        """Count values by how often they occurred, in thousandths of the bounds' unit; None is none."""
        bounds, counts, total = self.bounds, self.counts, 0.0
        for milliseconds, n in times.items():
            if milliseconds is not None:
                value = milliseconds / 1000
                counts[bisect_left(bounds, value)] += n
                total += value * n
        self.sum += total


class Counters:
    """The counters. Those by endpoint have an entry for each of `endpoints` from the beginning.

    `messages` counts those that reached a terminal status, `attempts` requests by how they
    ended, `latency` has their durations, `settle` those of the statements that recorded them.
    """

    def __init__(self, endpoints: Iterable[str] = ()) -> None:
        names = sorted(set(endpoints))
        terminal = [status for status in Status if status is not Status.PENDING]
        self.messages: Counter[tuple[str, Status]] = Counter(
            {(name, status): 0 for name in names for status in terminal}
        )
        self.attempts = Counter({(name, kind): 0 for name in names for kind in ErrorClass})
        self.latency = {name: Histogram(ATTEMPT_BOUNDS) for name in names}
        self.settle = Histogram(SETTLE_BOUNDS)

    def recorded(self, settlement: Settlement, seconds: float) -> None:
        """Take in what one statement recorded, which took so long."""
        self.settle.observe(seconds)
        endpoint, durations = settlement.endpoint, settlement.attempt_durations_ms
        self.messages[endpoint, Status.DELIVERED] += settlement.delivered
        for status, times in Counter([outcome.status for _, _, outcome in settlement.ended]).items():
            self.messages[endpoint, status] += times
        self.attempts[endpoint, ErrorClass.NONE] += len(durations) - len(settlement.failed)
        for _, _, outcome in settlement.failed:
            if outcome.failure is not None:
                self.attempts[endpoint, outcome.failure.error_class] += 1
        latency = self.latency.get(endpoint) or self.latency.setdefault(endpoint, Histogram(ATTEMPT_BOUNDS))
        latency.observe_milliseconds(Counter(durations))
