"""Work by key that goes together: what is asked for while one statement is under way makes the next one.

Many callers poll the same few mailings, or add clients one by one. Each of them gets what a statement has done
that began after the call came, so a caller reads what they have written; and the database is asked once for all.
Acts that follow each other closely may share a session, such as a connection: to take one costs as much as a small
statement.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import cycle, islice
from typing import Generic, TypeVar

from server.domain.principals import source

Key = TypeVar("Key")
Value = TypeVar("Value")

MOST = 200
"""Keys of one statement."""

LONGEST_PACE = 0.002
"""Seconds that the next act waits at most."""

Act = Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]]
Asked = dict[Key, list[asyncio.Future[Value | None]]]
Session = Callable[[], AbstractAsyncContextManager[Act[Key, Value]]]


class Gathered(Generic[Key, Value]):
    """Gives single values, by what a `session` lends for at most `most` of them, in turn of those who asked.

    A session lasts for `linger()` seconds, which is asked when it begins, or else for one act. Within it an act that
    answered several callers makes the next one wait, from its own beginning on, until it may be as many again: `pace`
    seconds for each but the first. A caller alone never waits.
    """

    def __init__(
        self,
        session: Session[Key, Value],
        most: int = MOST,
        linger: Callable[[], float] = float,
        pace: float = 0.0,
    ) -> None:
        self._session = session
        self._most = most
        self._linger = linger
        self._pace = pace
        self._asked: Asked[Key, Value] = {}
        self._sources: dict[Key, str] = {}
        self._working: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None

    async def get(self, key: Key) -> Value | None:
        """Return the value of a key, None without one. Raise what the session raises."""
        answer: asyncio.Future[Value | None] = asyncio.get_running_loop().create_future()
        if asked := self._asked.get(key):
            asked.append(answer)
        else:
            self._asked[key], self._sources[key] = [answer], source()
            self._wake()
        return await answer

    def _wake(self) -> None:
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="gathered work")
        elif self._idle is not None:
            _end(self._idle)

    async def _work(self) -> None:
        """Work until nothing is asked any more."""
        try:
            while self._asked:
                await self._work_in_session()
        finally:
            self._working = None

    async def _work_in_session(self) -> None:
        """Answer what is asked, and what comes while the session may last; an error is for those being answered."""
        answers = self._take()
        try:
            async with self._session() as act:
                began = asyncio.get_running_loop().time()
                ends = began + self._linger()
                while answers:
                    found = await act([*answers])
                    answered = 0
                    for key, waiting in answers.items():
                        _answer(waiting, found.get(key))
                        answered += len(waiting)
                    answers = {}
                    if await self._asked_before(ends):
                        began = await self._more_asked(began, answered)
                        answers = self._take()
        except BaseException as error:
            failure = error if isinstance(error, Exception) else asyncio.CancelledError()
            for waiting in answers.values():
                _fail(waiting, failure)
            if not isinstance(error, Exception):
                raise

    async def _asked_before(self, ends: float) -> bool:
        """Return whether something is asked before a time of the loop's clock, as soon as it is."""
        loop = asyncio.get_running_loop()
        if (seconds := ends - loop.time()) <= 0:
            return False
        if not self._asked:
            idle = self._idle = loop.create_future()
            timer = loop.call_later(seconds, _end, idle)
            try:
                await idle
            finally:
                timer.cancel()
                self._idle = None
        return bool(self._asked)

    async def _more_asked(self, began: float, answered: int) -> float:
        """Let more be asked after an act that began then and answered so many; return when the next one begins."""
        loop = asyncio.get_running_loop()
        pause = min((answered - 1) * self._pace, LONGEST_PACE)
        if pause and (seconds := began + pause - loop.time()) > 0:
            await asyncio.sleep(seconds)
        return loop.time()

    def _take(self) -> Asked[Key, Value]:
        """Take those whose turn it is."""
        keys = self._next()
        for key in keys:
            del self._sources[key]
        return {key: self._asked.pop(key) for key in keys}

    def _next(self) -> list[Key]:
        """Return the keys whose turn it is: the sources' first ones, their second ones, and so on."""
        if len(self._asked) <= self._most:
            return [*self._asked]
        queues: dict[str, deque[Key]] = defaultdict(deque)
        for key in self._asked:
            queues[self._sources[key]].append(key)
        turns = (queue.popleft() for queue in cycle([*queues.values()]) if queue)
        return [*islice(turns, self._most)]


def _answer(waiting: Sequence[asyncio.Future[Value]], value: Value) -> None:
    for one in waiting:
        if not one.done():
            one.set_result(value)


def _fail(waiting: Sequence[asyncio.Future[Value]], error: Exception | asyncio.CancelledError) -> None:
    for one in waiting:
        if not one.done():
            one.set_exception(error)


def _end(idle: asyncio.Future[None]) -> None:
    if not idle.done():
        idle.set_result(None)
