"""One watched mailing: its latest state, when it is read next, and who waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from dispatcher.model.states import MailingState
from server.domain.mailings import Mailing
from server.watch.waiters import Waiters

IDLE_PAUSE = 0.5
"""The longest time between two reads, in seconds, unless all watchers want fewer."""

SETTLING = 5.0
"""How long a mailing that has ended may still have pending messages before its state is terminal, in seconds."""

STATES_PER_SECOND = 2400.0
"""The most states of one mailing that are sent to all its watchers together: with very many, each gets fewer.

A state costs some 40 µs, half of it in the kernel. A thousand watchers hear of a change within half a second.
"""

NOTIFIED_AT_ONCE = 350
"""The most watchers that are notified in one turn of the loop: everything else waits 14 ms at the most."""

LATE = 0.1
"""A read that begins so late, in seconds, does not put off those after it."""

_ENDED = frozenset({MailingState.COMPLETED, MailingState.CANCELLED})
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class View:
    """A mailing as read when it was due, `at` a time of the loop's clock; `body` is what is sent of it.

    `number` grows with each view of it. After a `terminal` one nothing changes any more.
    """

    mailing: Mailing
    body: bytes
    at: float
    number: int
    terminal: bool


class MailingTopic:
    """What the hub knows of one mailing. `intervals` counts its watchers by the interval they want."""

    def __init__(self, mailing_id: int) -> None:
        self.mailing_id = mailing_id
        self.intervals: Counter[float] = Counter()
        self.latest: View | None = None
        self.due_at = 0.0
        self._asking: Waiters[View] = Waiters()
        self._waiting: Waiters[View] = Waiters()
        self._failure: Callable[[], Exception] | None = None
        self._pause = 0.0
        self._at = 0.0
        self._ended_at: float | None = None

    async def fresh(self) -> View:
        """Return the mailing as a read finds it that begins after this call. Raise the error given to `fail`."""
        self.due_at = 0.0
        return await self._asking.wait()

    async def newer(self, view: View) -> View:
        """Return the first view after `view`. Raise the error given to `fail`."""
        if self._failure is not None:
            raise self._failure()
        if self.latest is not None and self.latest.number > view.number:
            return self.latest
        return await self._waiting.wait()

    def begin(self, now: float) -> Waiters[View]:
        """Return those who wait for a read that begins now."""
        self._at = self.due_at if now - self.due_at < LATE else now
        asking, self._asking = self._asking, Waiters()
        return asking

    def answer(self, asking: Waiters[View], failure: Callable[[], Exception] | None = None) -> None:
        """Answer those who wait for a read that has ended, or that failed."""
        failure = self._failure or failure
        if failure is not None:
            asking.fail(failure)
        elif self.latest is not None:
            asking.answer(self.latest)

    def publish(self, mailing: Mailing, encode: Callable[[Mailing], bytes]) -> None:
        """Take in what was read, and notify the watchers if it is new."""
        terminal = self._terminal(mailing)
        if self.latest is None or mailing != self.latest.mailing:
            number = self.latest.number + 1 if self.latest else 1
            self._notify(View(mailing, encode(mailing), self._at, number, terminal))
            self._pause = self._shortest()
            self.due_at = self._at + self._pause
        elif terminal and not self.latest.terminal:
            self._notify(replace(self.latest, at=self._at, number=self.latest.number + 1, terminal=True))
        else:
            self.unchanged()

    def unchanged(self) -> None:
        """Put the next read off, further each time."""
        self._pause = max(min(self._pause * _GROWTH, IDLE_PAUSE), self._shortest())
        self.due_at = self._at + self._pause

    def expedite(self, now: float) -> None:
        """Have the mailing read at once, or as soon as its watchers may be notified again."""
        notified_at = self.latest.at if self.latest else 0.0
        self.due_at = min(self.due_at, max(now, notified_at + self._shortest()))

    def fail(self, failure: Callable[[], Exception]) -> None:
        """End every watcher with an error of its own made by `failure`."""
        self._failure = failure
        self._waiting.fail(failure)
        self._asking.fail(failure)

    def _shortest(self) -> float:
        """Return how soon after a state the next one may be sent, in seconds."""
        return max(min(self.intervals, default=IDLE_PAUSE), self.intervals.total() / STATES_PER_SECOND)

    def _notify(self, view: View) -> None:
        self.latest = view
        self._waiting.answer(view, NOTIFIED_AT_ONCE)

    def _terminal(self, mailing: Mailing) -> bool:
        """Return whether the mailing has ended and its last messages are settled, or will not be."""
        if mailing.state not in _ENDED:
            self._ended_at = None
            return False
        self._ended_at = self._at if self._ended_at is None else self._ended_at
        return not mailing.progress.pending or self._at - self._ended_at >= SETTLING
