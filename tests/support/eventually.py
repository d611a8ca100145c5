"""Waiting for what another task, process or session does: the only place in the tests that polls.

What tells by itself that it happened is awaited instead: a scripted endpoint, a stream, an event.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(ask: Callable[[], Awaitable[T]], holds: Callable[[T], object] = ..., within: float = ...) -> T: ...


@overload
async def eventually(ask: Callable[[], T], holds: Callable[[T], object] = ..., within: float = ...) -> T: ...


async def eventually(ask: Callable[[], Any], holds: Callable[[Any], object] = bool, within: float = 15.0) -> Any:
    """Ask until the answer holds, and return it; fail after `within` seconds, telling the last answer."""
    give_up_at = time.monotonic() + within
    while not holds(last := await value if inspect.isawaitable(value := ask()) else value):
        assert time.monotonic() < give_up_at, f"still {last!r} after {within} s"
        await asyncio.sleep(0.02)
    return last


def eventually_sync(
    ask: Callable[[], T], holds: Callable[[T], object] = bool, within: float = 90.0, pause: float = 0.05
) -> T:
    """Do the same in a test without an event loop, which waits for other processes."""
    give_up_at = time.monotonic() + within
    while not holds(last := ask()):
        assert time.monotonic() < give_up_at, f"still {last!r} after {within} s"
        time.sleep(pause)
    return last
