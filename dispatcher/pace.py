"""How fast an endpoint takes messages that asks for patience: found out, not configured.

An answer that asks for patience stops everything for as long as it says, or for a pause that
doubles. Then messages leave at a little less than the rate at which they were accepted before.
That guess grows fast until patience is asked for again; from then on the rate is known, and grows
slowly, later faster, to find out when the endpoint takes more. Pure: time
comes in as an argument; times are monotonic seconds.
"""

from __future__ import annotations

from math import exp

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds to wait where the endpoint does not say how long; they double while nothing is accepted."""

LONGEST_ASKED = 3600.0

CUT = 0.97
"""The share of the rate accepted before that is sent after a pause."""

HOLD, GROWTH = 15.0, 0.0002
"""Seconds after a pause in which the rate stays; then it grows by their square: 3% in 12, half in 45."""

SEARCH = 0.35
"""How fast a first guess grows: twofold in 1.4 seconds."""

QUICK, CUTS = 3.0, (1.0, 0.9, 0.7, 0.5, 0.3)
"""Patience that is asked for within so many seconds after a pause cuts the rate; each time by more."""

OVERSHOT = 0.85
"""The share of the rate at the end of a search that the endpoint surely takes."""

UNBOUND, UNBOUND_GUESS = 8.0, 100.0
"""From so many times the rate, or the first guess, on there is none: the endpoint has changed."""

AHEAD = 2.0
"""Seconds for whose messages work is claimed: more would wait here while another replica could send it."""

_SPAN = 5.0
"""The rate is measured over the last 5 to 10 seconds."""

_BEHIND = 0.02
"""Seconds of lateness that are made up for."""


class Pace:
    """The pauses and the rate of one endpoint.

    On `trial` one request at a time may leave: nothing was accepted before the last pause.
    """

    def __init__(self) -> None:
        self.until = float("-inf")
        self.trial = False
        self._rate = 0.0
        self._since = 0.0
        self._next_at = 0.0
        self._barren = 0
        self._measured: float | None = None
        self._known = 0.0
        self._searching = True
        self._quick = 0
        self._onset = 0.0
        self._mark = self._split = float("-inf")
        self._older = self._newer = 0

    @property
    def is_free(self) -> bool:
        """Whether it holds nothing back."""
        return not self._rate and self._measured is None and not self.trial

    def accepted(self, now: float, messages: int = 1) -> None:
        """Note that messages were accepted."""
        self._rotate(now)
        self._newer += messages
        if self.trial and now >= self.until:
            self.trial = False

    def _rotate(self, now: float) -> None:
        """Forget what is too old to be measured."""
        if now - self._split > 2 * _SPAN:
            self._mark, self._older = now, 0
        elif now - self._split > _SPAN:
            self._mark, self._older = self._split, self._newer
        else:
            return
        self._split, self._newer = now, 0

    def throttled(self, now: float, began: float, retry_after: float | None) -> float:
        """Note that the answer to a request that began at `began` asks for patience.

        Return for how many seconds nothing is to be sent from now on, 0 if that was known.
        """
        if began < self.until:
            return 0.0
        if self._older + self._newer:
            self._barren = 0
        pause = min(retry_after, LONGEST_ASKED) if retry_after else min(FIRST_PAUSE * 2**self._barren, LONGEST_PAUSE)
        self._barren = min(self._barren + 1, 10)
        self._pause(now, pause)
        return pause

    def learn(self, now: float, pause: float) -> bool:
        """Take over that nothing is to be sent for `pause` seconds, which another replica found out.

        Return whether that is news.
        """
        begins = now >= self.until and now + pause > self.until + _BEHIND
        if begins:
            self._pause(now, pause)
        else:
            self.until = max(self.until, now + pause)
        return begins

    def _pause(self, now: float, pause: float) -> None:
        self.until = now + pause
        self._onset = now
        began = self._mark if self._mark > float("-inf") else now
        self._measured = max(now - began + (0.0 if self._rate else pause), 0.05)
        known = self._rate and not self._searching
        self._quick = self._quick + 1 if known and now - self._since < QUICK else 0
        cut = OVERSHOT if self._searching else CUTS[min(self._quick, len(CUTS) - 1)]
        self._known = self.rate(now) * cut
        self._searching = not self._rate

    def _resume(self, now: float) -> None:
        """Draw the conclusion of a pause that is over, when everything sent before it was answered."""
        if self._measured is None:
            return
        accepted = self._older + self._newer
        self.trial = not accepted and not self._known
        self._rate = CUT * max(accepted / self._measured, self._known)
        self._measured = None
        self._since, self._next_at = now, now
        self._mark, self._split, self._older, self._newer = self._onset, now, 0, 0

    def rate(self, now: float) -> float:
        """Return how many requests a second may start, 0 without a limit."""
        if not self._rate:
            return 0.0
        age = now - self._since
        growth = SEARCH * age
        if not self._searching:
            growth = GROWTH * max(0.0, age - HOLD) ** 2
        factor = exp(min(growth, 5.0))
        if factor >= (UNBOUND_GUESS if self._searching else UNBOUND):
            self._rate = 0.0
            return 0.0
        return self._rate * factor

    def reach(self, now: float) -> float:
        """Return how many messages it may send in the next seconds, as far as that is known."""
        return AHEAD * self.rate(now)

    def ready(self, now: float, most: int) -> int:
        """Return how many requests, at most `most`, may start now."""
        if now < self.until:
            return 0
        self._resume(now)
        rate = self.rate(now)
        if not rate:
            return most
        return 0 if now < self._next_at else min(most, int((now - self._next_at) * rate) + 1)

    def take(self, now: float) -> None:
        """Use the moment of one request."""
        if rate := self.rate(now):
            self._next_at = max(self._next_at + 1 / rate, now - _BEHIND)

    def next_at(self, now: float) -> float:
        """Return when the next request may start."""
        return max(self.until, self._next_at if self._rate else now)
