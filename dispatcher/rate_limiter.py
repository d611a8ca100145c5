"""Rates that hold over all replicas together: messages leave at moments the database gave out.

The database gives moments to replicas one after the other, never two to the same one, a little
ahead of time. A replica lets one request start per moment of its own, and drops what it is late
for instead of catching up: so no second ever sees more than its share. Pure: time comes in as an
argument; times are seconds.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from dispatcher.model.endpoints import SlotRequest, Slots

HORIZON = 0.2
"""How far ahead moments are given out."""

LATE = 0.03
"""A moment that is missed by more is lost: more than this share of a second is never made up for."""

_CERTAIN_FOR = 60.0
"""How long the best reading of the database's clock is trusted."""


class DatabaseTime:
    """Where the database's clock stands on this replica's monotonic one, as well as is known."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._error = float("inf")
        self._read_at = float("-inf")

    def learn(self, asked: float, answered: float, read_at: float) -> None:
        """Take in a reading made between `asked` and `answered` (monotonic); `read_at` is in epoch seconds.

        The one with the shortest way is kept, unless the clock has jumped since.
        """
        offset, error = read_at - (asked + answered) / 2, (answered - asked) / 2
        jumped = abs(offset - self._offset) > error + self._error
        if error <= self._error or jumped or answered - self._read_at > _CERTAIN_FOR:
            self._offset, self._error, self._read_at = offset, error, answered

    def local(self, moment: float) -> float:
        """Return the monotonic time of a moment given in epoch seconds."""
        return moment - self._offset


class _Run(NamedTuple):
    """Moments in a row: `left` of them, `step` apart, the first one at `first`."""

    first: float
    step: float
    left: int

    def passed(self, now: float) -> int:
        """Return how many of them are not after `now`."""
        return 0 if now < self.first else min(self.left, int((now - self.first) / self.step) + 1)


class RateLimiter:
    """Lets requests through at the moments it holds. `rate` is in requests a second, more than 0."""

    def __init__(self, key: str, rate: float) -> None:
        self.key = key
        self.rate = rate
        self._runs: deque[_Run] = deque()
        self._held = 0
        self._ask_at = 0.0

    def add(self, first: float, slots: Slots) -> None:
        """Take in moments, the first of them at `first`; none says when there may be some again."""
        if slots.granted:
            self._runs.append(_Run(first, slots.step, slots.granted))
            self._held += slots.granted
        self._ask_at = first + slots.step * slots.granted - HORIZON / 2

    def open(self, now: float) -> bool:
        """Return whether a request may start now. Forgets the moments that were missed."""
        while self._runs and self._runs[0].first < now - LATE:
            run = self._runs.popleft()
            missed = run.passed(now - LATE)
            self._held -= missed
            if missed < run.left:
                self._runs.appendleft(_Run(run.first + missed * run.step, run.step, run.left - missed))
        return bool(self._runs) and self._runs[0].first <= now

    def ready(self, now: float) -> int:
        """Return how many requests may start now."""
        return sum(run.passed(now) for run in self._runs) if self.open(now) else 0

    def take(self, requests: int = 1) -> None:
        """Use the first moments, of which at least so many are `ready`."""
        self._held -= requests
        while requests:
            first, step, left = self._runs.popleft()
            used = min(left, requests)
            if used < left:
                self._runs.appendleft(_Run(first + used * step, step, left - used))
            requests -= used

    def request(self, now: float, demand: int) -> SlotRequest | None:
        """Return what to ask the database for, so that `demand` requests find moments; None for nothing yet."""
        if demand <= self._held or now < self._ask_at:
            return None
        most = int(HORIZON * self.rate) + 1
        return SlotRequest(self.key, self.rate, min(demand - self._held, most))

    def postpone(self, until: float) -> None:
        """Ask for nothing before `until`: what was asked last could not be answered."""
        self._ask_at = until

    def next_at(self, now: float, demand: int) -> float:
        """Return when to look again: at the next moment, or when there may be new ones."""
        moment = self._runs[0].first if self._runs else float("inf")
        return min(moment, max(self._ask_at, now)) if demand > self._held else moment
