"""Keeps a process that works for long as small as it was: few heaps, and a calm collector."""

from __future__ import annotations

import ctypes
import gc
import sys

_M_ARENA_MAX = -8  # malloc.h of glibc


def use_one_arena() -> None:
    """Let all threads share one heap, where the C library is glibc; call it before any is started.

    gRPC's threads would otherwise get heaps of their own, which grow by fragments for hours:
    1.4 MB a minute under load, against half of that and falling with a single one.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)


def tune_gc() -> None:
    """Let the garbage collector look less often, and never at what was loaded: worth 3% of a dispatcher's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 5, 10)
