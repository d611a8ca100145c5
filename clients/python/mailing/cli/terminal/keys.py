"""Single keys of a terminal, read without waiting for Enter; without a terminal there are none."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

try:
    import termios
    import tty
except ImportError:  # not made for every system
    _TERMINALS = False
else:
    _TERMINALS = True

UP, DOWN = "up", "down"

_SEQUENCES = {"\x1b[A": UP, "\x1bOA": UP, "\x1b[B": DOWN, "\x1bOB": DOWN}
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)

ReadKey = Callable[[float], str]
"""Waits up to the given number of seconds and returns a key: a character, UP, DOWN, or '' for none."""


@contextmanager
def key_reader() -> Iterator[ReadKey | None]:
    """Yield a reader of the keys typed at standard input, without echo; None where that is no terminal."""
    if not _TERMINALS or not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _Keyboard(descriptor).next
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def no_keys(seconds: float) -> str:
    """Wait as a reader of keys does, and return none."""
    time.sleep(seconds)
    return ""


class _Keyboard:
    """Keys that were typed and not yet asked for; several may come at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._keys: deque[str] = deque()

    def next(self, seconds: float) -> str:
        """Return the next key, waiting for it."""
        if not self._keys and select.select([self._descriptor], [], [], seconds)[0]:
            typed = os.read(self._descriptor, 256).decode(errors="replace")
            self._keys.extend(_SEQUENCES.get(key, key) for key in _KEY.findall(typed))
        return self._keys.popleft() if self._keys else ""
