"""What a dispatcher process did since it began: plain counters that only grow.

Fed once per settle, from what was recorded, so that sending a message costs nothing here.
Knows nobody who reads them: names and forms of metrics are theirs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dispatcher.model.states import ErrorClass, Status
from dispatcher.ports import Settled

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
    `lost` counts batches that somebody else took over.
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
        self.claimed = 0
        self.lost = 0

    def settled(self, endpoint: str, settled: Sequence[Settled], seconds: float) -> None:
        """Take in what one statement recorded, which took so long."""
        self.settle.observe(seconds)
        if not settled:
            return
        # As plain numbers: members of an enum are slow to hash, and a count of equals is quick.
        if [outcome.status for _, _, outcome in settled].count(Status.DELIVERED) == len(settled):  # nearly always
            statuses, kinds = Counter({int(Status.DELIVERED): len(settled)}), Counter({0: len(settled)})
            durations = Counter([outcome.duration_ms for _, _, outcome in settled])
        else:
            tried = [outcome for _, _, outcome in settled if outcome.attempted]
            statuses = Counter([int(outcome.status) for _, _, outcome in settled])
            kinds = Counter([int(outcome.failure.error_class) if outcome.failure else 0 for outcome in tried])
            durations = Counter([outcome.duration_ms for outcome in tried])
        self._add(endpoint, statuses, kinds, durations)

    def _add(self, endpoint: str, statuses: Counter[int], kinds: Counter[int], durations: Counter[int | None]) -> None:
        for status, times in statuses.items():
            if status != Status.PENDING:
                self.messages[endpoint, Status(status)] += times
        for kind, times in kinds.items():
            self.attempts[endpoint, ErrorClass(kind)] += times
        latency = self.latency.get(endpoint) or self.latency.setdefault(endpoint, Histogram(ATTEMPT_BOUNDS))
        latency.observe_milliseconds(durations)
