"""How live figures look in a terminal monitor: rates over time as a line of blocks, spans, short numbers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS = "_.-:=+*#"


def sparkline(values: Iterable[float], *, plain: bool = False) -> str:
    """Returns one character per value, the largest value drawn full; `plain` ones are ASCII."""
    numbers = list(values)
    largest = max(numbers, default=0.0)
    blocks = _PLAIN_BLOCKS if plain else _BLOCKS
    if largest <= 0:
        return blocks[0] * len(numbers)
    return "".join(blocks[min(int(value / largest * len(blocks)), len(blocks) - 1)] for value in numbers)


def span(seconds: float) -> str:
    """Returns a time span as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def rate(per_second: float) -> str:
    """Returns a rate with as many digits as it deserves."""
    return f"{per_second:,.0f}" if per_second >= 10 or not per_second else f"{per_second:.1f}"


class RateHistory:
    """A rate over the last `length` steps of `step` seconds; a step has the newest rate that came in it."""

    def __init__(self, length: int = 40, step: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._step = step
        self._clock = clock
        self._values: deque[float] = deque(maxlen=length)
        self._newest = 0

    def add(self, per_second: float) -> None:
        """Takes the present rate in. Steps in which none came keep the one before."""
        now = int(self._clock() / self._step)
        if self._values:
            missed = min(now - self._newest, self._values.maxlen or 0)
            self._values.extend([self._values[-1]] * missed)
            self._values[-1] = per_second
        else:
            self._values.append(per_second)
        self._newest = now

    def values(self) -> list[float]:
        """Returns the rates, the newest one last."""
        return list(self._values)
