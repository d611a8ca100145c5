"""The bytes that requests and answers hold in memory, under one limit for all.

Who is slow holds no place that others wait for: when the limit is passed, the connection that holds its bytes for the
longest is cut off, and everybody else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_BYTES = 64 << 20


class HeldBytes:
    """Counts what is held, the oldest first."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._total = 0
        self._holders: dict[Hold, None] = {}

    @contextmanager
    def hold(self, abort: Callable[[], None]) -> Iterator[Hold]:
        """Lend a count of bytes; `abort` ends its connection when others need the room."""
        mine = Hold(self, abort)
        self._holders[mine] = None
        try:
            yield mine
        finally:
            self._forget(mine)

    def grown(self, hold: Hold, count: int) -> None:
        """Add bytes to what `hold` has, and make room."""
        if hold not in self._holders:
            return
        hold.bytes += count
        self._total += count
        while self._total > self._most and len(self._holders) > 1:
            oldest = next(one for one in self._holders if one.bytes)
            self._forget(oldest)
            oldest.abort()

    def _forget(self, hold: Hold) -> None:
        if hold in self._holders:
            del self._holders[hold]
            self._total -= hold.bytes


class Hold:
    """What one request holds."""

    def __init__(self, all_of_them: HeldBytes, abort: Callable[[], None]) -> None:
        self._all = all_of_them
        self.abort = abort
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count more bytes; fewer when negative."""
        self._all.grown(self, count)
