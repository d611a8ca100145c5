"""Tells watchers of mailings how these get on; each mailing is read once for all of its watchers.

A mailing is read as often as its most eager watcher wants while it changes, less often while
it does not, and one that has not started is only asked for its version. What a watcher has
not taken is replaced by what is newer: each one gets the latest state, none a queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress

from dispatcher.model.states import MailingState
from server.domain.errors import DatabaseUnavailable, Kind, NotFound, ShuttingDown
from server.domain.mailings import Mailing
from server.storage.progress import ProgressStore
from server.watch.mailing_topic import MailingTopic, View

_log = logging.getLogger(__name__)

READ_AT_ONCE = 200
"""The most mailings of one statement."""

AWAY_PAUSE = 1.0
"""Seconds between two tries while the database is away."""


class HubFailed(Exception):
    """The hub ended by a defect, which was logged."""


class MailingHub:
    """The watched mailings of one replica. `encode` makes what is sent of a mailing, once for all."""

    def __init__(self, progress: ProgressStore, encode: Callable[[Mailing], bytes]) -> None:
        self._progress = progress
        self._encode = encode
        self._topics: dict[int, MailingTopic] = {}
        self._task: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def watchers(self) -> int:
        """How many streams there are."""
        return sum(topic.intervals.total() for topic in self._topics.values())

    async def watch(self, mailing_id: int, interval: float) -> AsyncGenerator[View, None]:
        """Yield the mailing now and after changes, at most once per `interval` seconds, until its final state.

        Raise NotFound, also when it is deleted meanwhile, ShuttingDown, and
        DatabaseUnavailable where the first state cannot be read.
        """
        topic = self._join(mailing_id, interval)
        try:
            view = await self._now(topic)
            yield view
            while not view.final:
                newer = await topic.newer(view)
                # What was read too early is kept back, and replaced by what comes meanwhile.
                if (early := view.at + interval - newer.at) > 0.001:
                    await self._sleep(early)
                    newer = topic.latest or newer
                if newer.body is not view.body:
                    yield newer
                view = newer
        finally:
            self._leave(topic, interval)

    def hint(self) -> None:
        """Note that somebody in this process changed a mailing."""
        if len(self._topics) <= READ_AT_ONCE:
            now = asyncio.get_running_loop().time()
            for topic in self._topics.values():
                topic.expedite(now)
            self._nudge.set()

    async def close(self) -> None:
        """End every watcher with ShuttingDown and let no other begin."""
        self._closed.set()
        self._fail(ShuttingDown)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _join(self, mailing_id: int, interval: float) -> MailingTopic:
        if self._closed.is_set():
            raise ShuttingDown
        topic = self._topics.get(mailing_id)
        if topic is None:
            topic = self._topics[mailing_id] = MailingTopic(mailing_id)
        topic.intervals[interval] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="mailing hub")
        return topic

    def _leave(self, topic: MailingTopic, interval: float) -> None:
        topic.intervals[interval] -= 1
        topic.intervals = +topic.intervals
        if not topic.intervals:
            self._forget(topic)

    def _forget(self, topic: MailingTopic) -> None:
        if self._topics.get(topic.mailing_id) is topic:
            del self._topics[topic.mailing_id]
        if not self._topics:
            self._nudge.set()

    async def _now(self, topic: MailingTopic) -> View:
        """Return the mailing as a read finds it that begins after this call; watchers share it."""
        asked: asyncio.Future[View] = asyncio.get_running_loop().create_future()
        topic.asking.append(asked)
        topic.due_at = 0.0
        self._nudge.set()
        return await asked

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
            raise ShuttingDown

    def _fail(self, failure: Callable[[], Exception]) -> None:
        for topic in self._topics.values():
            topic.fail(failure)

    async def _run(self) -> None:
        try:
            while self._topics:
                self._nudge.clear()
                now = asyncio.get_running_loop().time()
                due = [topic for topic in self._topics.values() if topic.due_at <= now]
                if due:
                    await self._read(due[:READ_AT_ONCE])
                else:
                    next_at = min(topic.due_at for topic in self._topics.values())
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._nudge.wait(), next_at - now)
        except Exception:
            _log.exception("the mailing hub failed")
            self._fail(HubFailed)
            self._topics.clear()

    async def _read(self, topics: Sequence[MailingTopic]) -> None:
        now = asyncio.get_running_loop().time()
        asked = [topic.begin(now) for topic in topics]
        try:
            await self._bring_up_to_date(topics)
        except DatabaseUnavailable as error:
            _log.warning("watched mailings cannot be read, trying again: %r", error.__cause__)
            again_at = asyncio.get_running_loop().time() + AWAY_PAUSE
            for topic, futures in zip(topics, asked, strict=True):
                topic.due_at = again_at
                topic.answer(futures, DatabaseUnavailable)
        except BaseException:
            for topic, futures in zip(topics, asked, strict=True):
                topic.answer(futures, ShuttingDown if self._closed.is_set() else HubFailed)
            raise
        else:
            for topic, futures in zip(topics, asked, strict=True):
                topic.answer(futures)

    async def _bring_up_to_date(self, topics: Sequence[MailingTopic]) -> None:
        waiting = {
            topic.mailing_id: topic
            for topic in topics
            if topic.latest is not None and topic.latest.mailing.state is MailingState.SCHEDULED
        }
        if waiting:
            found = await self._progress.versions(list(waiting))
            for mailing_id, topic in list(waiting.items()):
                assert topic.latest is not None
                mailing = topic.latest.mailing
                if found.get(mailing_id) != (mailing.version, mailing.updated_at):
                    del waiting[mailing_id]
                else:
                    topic.unchanged()
        ids = [topic.mailing_id for topic in topics if topic.mailing_id not in waiting]
        mailings = await self._progress.read(ids) if ids else {}
        for topic in topics:
            if topic.mailing_id in waiting:
                continue
            if (read := mailings.get(topic.mailing_id)) is None:
                topic.fail(lambda topic=topic: NotFound(Kind.MAILING, topic.mailing_id))  # type: ignore[misc]
                self._forget(topic)
            else:
                topic.publish(read, self._encode)
