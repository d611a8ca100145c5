"""Work by key that goes together: what is asked for while one statement is under way makes the next one.

Many callers poll the same few mailings, or add clients one by one. Each of them gets what a statement has done
that began after the call came, so a caller reads what they have written; and the database is asked once for all.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Generic, TypeVar

from server.domain.principals import source

Key = TypeVar("Key")
Value = TypeVar("Value")

MOST = 200
"""Keys of one statement."""


class Gathered(Generic[Key, Value]):
    """Gives single values, by an `act` for at most `most` of them, in turn of those who asked."""

    def __init__(self, act: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]], most: int = MOST) -> None:
        self._act = act
        self._most = most
        self._asked: dict[Key, asyncio.Future[Value | None]] = {}
        self._sources: dict[Key, str] = {}
        self._acting: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> Value | None:
        """Return the value of a key, None without one. Raise what `act` raises."""
        answer = self._asked.get(key)
        if answer is None:
            answer = self._asked[key] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_looked_at)
            self._sources[key] = source()
        if self._acting is None:
            self._acting = asyncio.create_task(self._act_for_all(), name="gathered work")
        # Others may wait for the same answer.
        return await asyncio.shield(answer)

    async def _act_for_all(self) -> None:
        """Act until nothing is asked any more."""
        try:
            while self._asked:
                answers = {key: self._asked.pop(key) for key in self._next()}
                for key in answers:
                    del self._sources[key]
                await self._answer(answers)
        finally:
            self._acting = None

    def _next(self) -> list[Key]:
        """Return the keys whose turn it is: the sources' first ones, their second ones, and so on."""
        if len(self._asked) <= self._most:
            return [*self._asked]
        queues: dict[str, deque[Key]] = defaultdict(deque)
        for key in self._asked:
            queues[self._sources[key]].append(key)
        turns = (queue.popleft() for queue in cycle([*queues.values()]) if queue)
        return [*islice(turns, self._most)]

    async def _answer(self, answers: Mapping[Key, asyncio.Future[Value | None]]) -> None:
        try:
            found = await self._act([*answers])
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
