"""Rates per principal: how many calls a second each may begin."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from server.domain.errors import RateExceeded

FORGET_ABOVE = 10_000
"""Above this number of principals, those that have been quiet are forgotten."""


class CallRate:
    """Lets each principal begin `per_second` calls a second, and as many at once after a second of rest.

    This is GCRA, which is a token bucket that needs one number for each principal: the time at
    which the bucket is full again. `now` returns seconds that only grow.
    """

    def __init__(self, per_second: float, now: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._now = now
        self._full_at: dict[str, float] = {}
        self._forget_above = FORGET_ABOVE

    @property
    def remembered(self) -> int:
        """How many principals have an entry."""
        return len(self._full_at)

    def take(self, principal: str) -> None:
        """Take one token. Raise RateExceeded when there is none."""
        if not self._per_second:
            return
        now = self._now()
        full_at = max(self._full_at.get(principal, now), now) + 1 / self._per_second
        wait = full_at - now - max(1.0, 1 / self._per_second)
        if wait > 1e-9:
            raise RateExceeded(self._per_second, wait)
        self._full_at[principal] = full_at
        if len(self._full_at) > self._forget_above:
            self._forget(now)

    def _forget(self, now: float) -> None:
        self._full_at = {principal: at for principal, at in self._full_at.items() if at > now}
        self._forget_above = max(FORGET_ABOVE, 2 * len(self._full_at))
