"""The circuit breaker of one endpoint as one replica sees it.

It opens when too large a share of the last requests, or enough of them in a row, failed in a way
that speaks against the endpoint. What is open, and who may try whether it recovered, is shared by
all replicas in the database, but not what this replica alone has found while others are answered.
Pure: time comes in as an argument; times are monotonic seconds.
"""

from __future__ import annotations

from dispatcher.model.endpoints import EndpointState
from dispatcher.model.states import BreakerState, Suspension

FAILURE_RATIO = 0.5
"""The share of failed requests from which on it opens."""

MIN_REQUESTS = 20
"""So many requests at least must have ended in the window."""

WINDOW = 10.0
"""How far back requests count, at the most."""

RECENT = 100
"""Of so many requests on the last ones count, or twice as many: what was before an outage does not dilute it."""

RUN, SLOW_RUN, SLOW_RUN_LASTS = 20, 5, 1.0
"""So many failures in a row open it however long they took, or fewer that took so many seconds.

An endpoint that hangs has too few requests in the window when one at a time is allowed.
"""

PROBE_FIRST, PROBE_MOST = 1.0, 15.0
"""Seconds until the first probe, and between two probes at the most: the wait doubles."""

SUCCESS_COUNTS_FOR = 3.0
"""Seconds for which a delivery of one replica keeps the others from closing the endpoint for all."""

_NEVER = float("inf")
_HALF = WINDOW / 2
_CLOSED = BreakerState.CLOSED  # looked at for each message, and members of an enum take long to look up


class Breaker:
    """Counts how requests end. `state` is what this replica goes by; `probe_at` is when it may be tried next.

    `suspension` is set while it is not closed because of what the endpoint's answers say about us,
    `alone` while it is open here only, since others are answered.
    """

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.probe_at = _NEVER
        self.opened_at = 0.0
        self.suspension = Suspension.NONE
        self.alone = False
        self._own_probes = 0
        self._closed_at = float("-inf")
        self._probe_began, self._probing_until = 0.0, float("-inf")
        self._requests, self._failures, self._since = 0, 0, 0.0
        self._before = (0, 0)
        self._run, self._run_began = 0, 0.0

    @property
    def closed(self) -> bool:
        """Whether everything is let through."""
        return self.state is _CLOSED

    @property
    def failure_ratio(self) -> float:
        """The share of failed requests in the window, 0 to 1."""
        requests = self._requests + self._before[0]
        return (self._failures + self._before[1]) / requests if requests else 0.0

    def observe(self, now: float, began: float, failed: bool) -> bool:
        """Note how a request that began at `began` ended; return whether that opens the breaker.

        Requests from before it was last closed say nothing.
        """
        self._rotate(now)
        if self.is_before_closing(began):
            return False
        self._requests += 1
        if not failed:
            self._run = 0
            return False
        self._failures += 1
        if not self._run:
            self._run_began = now
        self._run += 1
        return self.closed and (self._fails_in_a_row(now) or self._fails_often())

    def succeeded(self, now: float, requests: int) -> None:
        """Note that requests which count ended well, while it is closed."""
        self._rotate(now)
        self._requests += requests
        self._run = 0

    def counts(self, began: float) -> bool:
        """Return whether it is closed, and was when a request began at `began`."""
        return self.state is _CLOSED and began >= self._closed_at

    def _rotate(self, now: float) -> None:
        """Forget what is too long ago, by time or by number."""
        if now - self._since > _HALF or self._requests >= RECENT:
            self._before = (self._requests, self._failures) if now - self._since < WINDOW else (0, 0)
            self._requests, self._failures, self._since = 0, 0, now

    def _fails_in_a_row(self, now: float) -> bool:
        return self._run >= RUN or (self._run >= SLOW_RUN and now - self._run_began >= SLOW_RUN_LASTS)

    def _fails_often(self) -> bool:
        return self._requests + self._before[0] >= MIN_REQUESTS and self.failure_ratio >= FAILURE_RATIO

    def is_before_closing(self, began: float) -> bool:
        """Return whether a request that began at `began` says nothing, because the breaker was closed since."""
        return began < self._closed_at

    def open(self, now: float, probe_in: float = PROBE_FIRST) -> None:
        """Let nothing through until a probe succeeds; the next one may be made in `probe_in` seconds."""
        if self.closed:
            self.opened_at = now
        self.state = BreakerState.OPEN
        self.probe_at = now + probe_in
        self._probing_until = float("-inf")

    def close(self, now: float) -> None:
        """Let everything through; what began before says nothing any more."""
        self.state = BreakerState.CLOSED
        self.suspension = Suspension.NONE
        self.alone = False
        self._own_probes = 0
        self.probe_at = _NEVER
        self._closed_at = now
        self._probing_until = float("-inf")
        self._requests, self._failures, self._before = 0, 0, (0, 0)
        self._run = 0

    def learn(self, now: float, shared: EndpointState | None) -> None:
        """Take over what all replicas know; None means that it is closed, which says nothing of what is ours alone."""
        if self.probing(now) and not self.alone:
            return
        if shared is None or shared.breaker is _CLOSED:
            # Soon after it was opened here the others are only learning of it.
            if not self.closed and not self.alone and now - self.opened_at > PROBE_FIRST:
                self.close(now)
        else:
            self.alone = False
            self.open(now, shared.probe_in)
            self.state = shared.breaker
            self.suspension = shared.suspension

    def probe(self, now: float, until: float) -> None:
        """Note that this replica may send one request, whose end is known before `until`."""
        self.state = BreakerState.HALF_OPEN
        self._probe_began, self._probing_until = now, until
        self.probe_at = until

    def wait_alone(self, now: float, shortest: float, longest: float) -> None:
        """Wait for the next probe, twice as long each time: others are answered, so it is ours alone to try."""
        self._own_probes += 1
        self.open(now, min(shortest * 2.0 ** min(self._own_probes, 20), longest))

    def probing(self, now: float) -> bool:
        """Return whether it is this replica's turn to try."""
        return now < self._probing_until

    def decides(self, now: float, began: float) -> bool:
        """Return whether a request that began at `began` is the probe; others were under way before."""
        return self.probing(now) and began >= self._probe_began
