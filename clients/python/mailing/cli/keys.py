"""Single keys of a terminal, read without waiting for Enter. Where there is no terminal there are no keys."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

try:
    import termios
    import tty
except ImportError:  # not made for every system
    _TERMINALS = False
else:
    _TERMINALS = True

UP, DOWN, ESCAPE = "up", "down", "escape"

_SEQUENCES = {b"\x1b[A": UP, b"\x1bOA": UP, b"\x1b[B": DOWN, b"\x1bOB": DOWN, b"\x1b": ESCAPE}

ReadKey = Callable[[float], str]
"""Waits up to so many seconds for a key and returns it: a character, UP, DOWN, ESCAPE, or '' for none."""


@contextmanager
def key_reader() -> Iterator[ReadKey | None]:
    """Reads keys of standard input, without echo, inside the block; None where that is no terminal."""
    if not _TERMINALS or not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _read(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def no_keys(seconds: float) -> str:
    """Waits as a reader of keys does and returns none."""
    time.sleep(seconds)
    return ""


def _read(descriptor: int, seconds: float) -> str:
    ready, _, _ = select.select([descriptor], [], [], seconds)
    if not ready:
        return ""
    typed = os.read(descriptor, 64)
    if typed[:1] == b"\x1b":
        return _SEQUENCES.get(typed[:3], "")
    return typed.decode(errors="replace")[-1:]
