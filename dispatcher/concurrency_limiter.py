"""How many requests an endpoint bears at once: found out, not configured.

Each window of answers gives a rate. The limit doubles while that makes the rate grow, and
stays where it no longer does; from time to time a larger one is tried again, for longer, since
rates scatter. It halves when the endpoint asks for patience or does not answer in time. Pure:
time comes in as an argument.
"""

from __future__ import annotations

from dispatcher.model.states import ErrorClass

FIRST = 64
"""Requests in flight to begin with."""

WINDOW = 0.1
"""The shortest window, in seconds; one lasts at least three times as long as a request."""

_GAIN = 1.12
"""A doubled limit must bring so many times the rate to be kept."""

_PATIENCE = 30
"""Windows between two tries of a larger limit, once the best one is found."""

_PROOF = 5
"""Windows in a row that a larger limit must win, once the best one is found: one may win by chance."""

_OVERLOAD = frozenset({ErrorClass.THROTTLED, ErrorClass.TIMEOUT, ErrorClass.LOCAL})


class ConcurrencyLimit:
    """The limit of one endpoint: `value`, between 1 and `most`.

    `kept` is the best limit found so far, which `value` exceeds while a larger one is tried, and
    `kept_rate` what it brought, in answers a second.
    """

    def __init__(self, most: int, first: int = FIRST) -> None:
        self.most = most
        self.value = self.kept = min(first, most)
        self._forget()

    def _forget(self) -> None:
        """Know no rate of any limit."""
        self.kept_rate = 0.0
        self._resting = 0
        self._proof = 1
        self._wins = 0
        self._begin(0.0)

    def bound(self, most: int) -> None:
        """Set another `most`; where there is more room, that is tried at once."""
        self.most = most
        self.value = min(self.value, most)
        self.kept = min(self.kept, most)
        self._resting = 0

    def restart(self) -> None:
        """Begin with a single request again: the endpoint was down, and is not to be overrun."""
        self.value = self.kept = 1
        self._forget()

    def idle(self) -> None:
        """Note that nothing is in flight: until something is again, no time counts."""
        self._since = 0.0

    def _begin(self, now: float) -> None:
        self._since = now
        self._answers = 0
        self._full = 0
        self._overloads = 0
        self._seconds = 0.0

    def observe(self, now: float, duration: float, error_class: ErrorClass, in_flight: int, requests: int = 1) -> bool:
        """Note how requests went that ended alike; return whether the limit was changed.

        `now` and `duration`, of all of them together, are in seconds; `in_flight` counts them, too.
        """
        if not self._since:
            self._begin(now - duration / requests)
        self._answers += requests
        self._seconds += duration
        if in_flight >= self.value:
            self._full += requests
        if error_class in _OVERLOAD:
            self._overloads += 1
        elapsed = now - self._since
        short = elapsed < WINDOW or self._answers < self.value or elapsed * self._answers < 3 * self._seconds
        # An endpoint that answers nothing but overload is not asked a whole window more.
        if short and self._overloads < self.value:
            return False
        before = self.value
        self._turn(self._answers / max(elapsed, 1e-6))
        self._begin(now)
        return self.value != before

    def _turn(self, rate: float) -> None:
        """Draw the conclusion of a window."""
        if self._overloads:
            self.value = self.kept = max(1, self.value // 2)
            self.kept_rate = 0.0
            self._resting = _PATIENCE // 3
            self._wins = 0
        elif 2 * self._full < self._answers:
            return  # The limit was not what held the rate down.
        elif self.value > self.kept and rate < self.kept_rate * _GAIN:
            self.value = self.kept
            self._resting = _PATIENCE
            self._proof = _PROOF
            self._wins = 0
        elif self.value > self.kept and self._wins + 1 < self._proof:
            self._wins += 1
        elif self._resting:
            self._resting -= 1
            self.kept_rate += (rate - self.kept_rate) / 4
        else:
            self._wins = 0
            self.kept, self.kept_rate = self.value, rate
            self.value = min(self.most, self.value * 2)
