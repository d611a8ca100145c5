"""Callers that wait for the same thing: one answer, or one failure, wakes all of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiters(Generic[T]):
    """The callers inside `wait`. A caller that is cancelled leaves; the others go on waiting."""

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[T], None] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._futures)

    async def wait(self) -> T:
        """Return the next answer. Raise the next failure."""
        future = self._join()
        try:
            return await future
        finally:
            self._futures.pop(future, None)

    async def wait_for(self, seconds: float, otherwise: Callable[[], T]) -> T:
        """Return the next answer or, after so many seconds, what `otherwise` returns. Raise the next failure."""
        future = self._join()
        timer = asyncio.get_running_loop().call_later(seconds, _expire, future, otherwise)
        try:
            return await future
        finally:
            timer.cancel()
            self._futures.pop(future, None)

    def _join(self) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._futures[future] = None
        return future

    def answer(self, value: T, at_once: int = sys.maxsize) -> None:
        """Hand `value` to all who wait, to `at_once` of them in each turn of the loop."""
        self._answer(list(self._futures), value, at_once)

    def _answer(self, futures: Sequence[asyncio.Future[T]], value: T, at_once: int) -> None:
        for future in futures[:at_once]:
            if not future.done():
                future.set_result(value)
        if left := futures[at_once:]:
            asyncio.get_running_loop().call_soon(self._answer, left, value, at_once)

    def fail(self, failure: Callable[[], Exception]) -> None:
        """End all waits, each with an error of its own made by `failure`."""
        for future in self._futures:
            if not future.done():
                future.set_exception(failure())


def _expire(future: asyncio.Future[T], otherwise: Callable[[], T]) -> None:
    if not future.done():
        future.set_result(otherwise())
