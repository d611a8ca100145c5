"""One watched mailing: its latest state, and who waits for the next one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from dispatcher.model.states import MailingState
from server.domain.mailings import Mailing

IDLE_PAUSE = 0.5
"""The longest time between two reads, in seconds, unless all watchers want fewer."""

SETTLING = 5.0
"""How long a mailing that is over may still have pending messages before its state is final, in seconds."""

STATES_PER_SECOND = 2400.0
"""The most states of one mailing that all its watchers together are sent: with very many, each gets fewer.

A state costs some 40 µs, half of it in the kernel. A thousand watchers hear of a change within half a second.
"""

TOLD_AT_ONCE = 350
"""So many watchers are told in one turn of the loop: everything else waits for 14 ms at the most."""

LATE = 0.1
"""A read that begins so late, in seconds, does not put off those after it."""

_OVER = frozenset({MailingState.COMPLETED, MailingState.CANCELLED})
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class View:
    """A mailing as read when it was due, `at` a time of the loop's clock; `body` is what is sent of it.

    `number` tells its views apart. In a `final` one nothing is to change any more.
    """

    mailing: Mailing
    body: bytes
    at: float
    number: int
    final: bool


class MailingTopic:
    """What the hub knows of one mailing. `intervals` counts its watchers by what they want."""

    def __init__(self, mailing_id: int) -> None:
        self.mailing_id = mailing_id
        self.intervals: Counter[float] = Counter()
        self.latest: View | None = None
        self.due_at = 0.0
        self.asking: list[asyncio.Future[View]] = []
        self._waiting: dict[asyncio.Future[View], None] = {}
        self._loop = asyncio.get_running_loop()
        self._failure: Callable[[], Exception] | None = None
        self._pause = 0.0
        self._at = 0.0
        self._over_at: float | None = None

    async def newer(self, view: View) -> View:
        """Return the first view after `view`. Raise what `fail` was told to."""
        if self._failure is not None:
            raise self._failure()
        if self.latest is not None and self.latest.number > view.number:
            return self.latest
        waiter: asyncio.Future[View] = self._loop.create_future()
        self._waiting[waiter] = None
        try:
            return await waiter
        finally:
            self._waiting.pop(waiter, None)

    def begin(self, now: float) -> list[asyncio.Future[View]]:
        """Return those who wait for a read that begins now."""
        self._at = self.due_at if now - self.due_at < LATE else now
        return self._take_asking()

    def _take_asking(self) -> list[asyncio.Future[View]]:
        asked, self.asking = self.asking, []
        return asked

    def answer(self, asked: list[asyncio.Future[View]], failure: Callable[[], Exception] | None = None) -> None:
        """Tell those who waited for a read how it ended."""
        failure = self._failure or failure
        for future in asked:
            if future.done():
                continue
            if failure is not None:
                future.set_exception(failure())
            elif self.latest is not None:
                future.set_result(self.latest)

    def publish(self, mailing: Mailing, encode: Callable[[Mailing], bytes]) -> None:
        """Take in what was read, and hand it on if it is new."""
        final = self._final(mailing)
        if self.latest is None or mailing != self.latest.mailing:
            number = self.latest.number + 1 if self.latest else 1
            self._hand_on(View(mailing, encode(mailing), self._at, number, final))
            self._pause = self._shortest()
            self.due_at = self._at + self._pause
        elif final and not self.latest.final:
            self._hand_on(replace(self.latest, at=self._at, number=self.latest.number + 1, final=True))
        else:
            self.unchanged()

    def unchanged(self) -> None:
        """Put the next read off, further and further."""
        self._pause = max(min(self._pause * _GROWTH, IDLE_PAUSE), self._shortest())
        self.due_at = self._at + self._pause

    def expedite(self, now: float) -> None:
        """Have the mailing read at once, or when its watchers may be told again."""
        told_at = self.latest.at if self.latest else 0.0
        self.due_at = min(self.due_at, max(now, told_at + self._shortest()))

    def _shortest(self) -> float:
        """Return how soon after a state the next one may be handed on, in seconds."""
        return max(min(self.intervals, default=IDLE_PAUSE), self.intervals.total() / STATES_PER_SECOND)

    def fail(self, failure: Callable[[], Exception]) -> None:
        """End every watcher with an error of its own made by `failure`."""
        self._failure = failure
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(failure())
        self.answer(self._take_asking())

    def _hand_on(self, view: View) -> None:
        self.latest = view
        self._tell(list(self._waiting), view)

    def _tell(self, waiters: list[asyncio.Future[View]], view: View) -> None:
        for waiter in waiters[-TOLD_AT_ONCE:]:
            if not waiter.done():
                waiter.set_result(view)
        if left := waiters[:-TOLD_AT_ONCE]:
            self._loop.call_soon(self._tell, left, view)

    def _final(self, mailing: Mailing) -> bool:
        """Return whether the mailing is over and its last messages are settled, or will not be."""
        if mailing.state not in _OVER:
            self._over_at = None
            return False
        self._over_at = self._at if self._over_at is None else self._over_at
        return not mailing.progress.pending or self._at - self._over_at >= SETTLING
