"""Rates and durations on a live screen: sparklines, short numbers, and a history of rates."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS = "_.-:=+*#"


def sparkline(values: Iterable[float], *, plain: bool = False) -> str:
    """Return one character per value, the largest one a full block; in ASCII when `plain`."""
    numbers = list(values)
    largest = max(numbers, default=0.0)
    blocks = _PLAIN_BLOCKS if plain else _BLOCKS
    if largest <= 0:
        return blocks[0] * len(numbers)
    return "".join(blocks[min(int(value / largest * len(blocks)), len(blocks) - 1)] for value in numbers)


def span(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def length(seconds: int) -> str:
    """Return a length of time in words, such as `1 d 2 h` or `90 s` as `1 min 30 s`."""
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        parts += [f"{count:,} {unit}"] if count else []
    return " ".join(parts) or "0 s"


def rate(per_second: float) -> str:
    """Return a rate with one decimal below 10, else with none."""
    return f"{per_second:,.0f}" if per_second >= 10 or not per_second else f"{per_second:.1f}"


class RateHistory:
    """A rate over the last `length` steps of `step` seconds; each step keeps its newest value."""

    def __init__(self, length: int = 40, step: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._step = step
        self._clock = clock
        self._values: deque[float] = deque(maxlen=length)
        self._newest = 0

    def add(self, per_second: float) -> None:
        """Add the current rate; steps without one keep the value before."""
        now = int(self._clock() / self._step)
        if self._values:
            missed = min(now - self._newest, self._values.maxlen or 0)
            self._values.extend([self._values[-1]] * missed)
            self._values[-1] = per_second
        else:
            self._values.append(per_second)
        self._newest = now

    def values(self) -> list[float]:
        """Return the rates, newest last."""
        return list(self._values)
