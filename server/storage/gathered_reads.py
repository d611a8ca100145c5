"""Reads by key that go together: those that are asked for while one is under way make one statement.

Many callers poll the same few mailings. Each of them gets what a statement has read that began after the
call came, so a caller reads what they have written; and the database is asked once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

MOST = 200
"""Keys of one statement."""


class GatheredReads(Generic[Key, Value]):
    """Gives single values, by a `read` of many."""

    def __init__(self, read: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]]) -> None:
        self._read = read
        self._asked: dict[Key, asyncio.Future[Value | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> Value | None:
        """Return the value of a key, None without one. Raise what `read` raises."""
        answer = self._asked.get(key)
        if answer is None:
            answer = self._asked[key] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_looked_at)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all(), name="gathered reads")
        # Others may wait for the same answer.
        return await asyncio.shield(answer)

    async def _read_all(self) -> None:
        """Read until nothing is asked any more."""
        try:
            while self._asked:
                keys = [*self._asked][:MOST]
                answers = {key: self._asked.pop(key) for key in keys}
                await self._answer(answers)
        finally:
            self._reading = None

    async def _answer(self, answers: Mapping[Key, asyncio.Future[Value | None]]) -> None:
        try:
            found = await self._read([*answers])
        except BaseException as error:
            for answer in answers.values():
                answer.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
            return
        for key, answer in answers.items():
            answer.set_result(found.get(key))


def _looked_at(answer: asyncio.Future[Value | None]) -> None:
    """Take an error that nobody waits for any more."""
    if not answer.cancelled():
        answer.exception()
