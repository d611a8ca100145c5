"""Streams the progress of mailings; each mailing is read once for all of its watchers.

While a mailing changes it is read as often as its fastest watcher wants, less often while it
does not, and one that has not started is only asked for its version. Nothing is queued: a watcher
that takes its states late gets the latest one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from dispatcher.model.states import MailingState
from dispatcher.tasks import cancel, happens
from server.domain.errors import DatabaseUnavailable, Kind, NotFound, ShuttingDown
from server.domain.mailings import Mailing
from server.storage.mailings import ProgressStore
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
        self._due = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def watchers(self) -> int:
        """How many streams there are."""
        return sum(topic.intervals.total() for topic in self._topics.values())

    async def watch(self, mailing_id: int, interval: float) -> AsyncGenerator[View, None]:
        """Yield the mailing now and after changes, at most once per `interval` seconds, until its terminal state.

        Raise NotFound, also when it is deleted meanwhile, ShuttingDown, and
        DatabaseUnavailable where the first state cannot be read.
        """
        topic = self._join(mailing_id, interval)
        try:
            self._due.set()
            view = await topic.fresh()
            yield view
            while not view.terminal:
                newer = await topic.newer(view)
                # A state that was read too early is held back, and replaced by what is read meanwhile.
                if (early := view.at + interval - newer.at) > 0.001:
                    if await happens(self._closed, early):
                        raise ShuttingDown
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
            self._due.set()

    async def close(self) -> None:
        """End every watcher with ShuttingDown and let no other begin."""
        self._closed.set()
        self._fail(ShuttingDown)
        if self._task is not None:
            await cancel(self._task)

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
            self._due.set()

    def _fail(self, failure: Callable[[], Exception]) -> None:
        for topic in self._topics.values():
            topic.fail(failure)

    async def _run(self) -> None:
        try:
            while self._topics:
                self._due.clear()
                now = asyncio.get_running_loop().time()
                due = [topic for topic in self._topics.values() if topic.due_at <= now]
                if due:
                    await self._read(due[:READ_AT_ONCE])
                else:
                    next_at = min(topic.due_at for topic in self._topics.values())
                    await happens(self._due, next_at - now)
        except Exception:
            _log.exception("the mailing hub failed")
            self._fail(HubFailed)
            self._topics.clear()

    async def _read(self, topics: Sequence[MailingTopic]) -> None:
        now = asyncio.get_running_loop().time()
        asking = [(topic, topic.begin(now)) for topic in topics]
        failure: Callable[[], Exception] | None = None
        try:
            await self._bring_up_to_date(topics)
        except DatabaseUnavailable as error:
            _log.warning("watched mailings cannot be read, trying again: %r", error.__cause__)
            failure = DatabaseUnavailable
            for topic in topics:
                topic.due_at = asyncio.get_running_loop().time() + AWAY_PAUSE
        except BaseException:
            failure = ShuttingDown if self._closed.is_set() else HubFailed
            raise
        finally:
            for topic, waiters in asking:
                topic.answer(waiters, failure)

    async def _bring_up_to_date(self, topics: Sequence[MailingTopic]) -> None:
        unchanged = await self._unchanged(topics)
        changed = {topic.mailing_id: topic for topic in topics if topic.mailing_id not in unchanged}
        mailings = await self._progress.read(list(changed)) if changed else {}
        for mailing_id, topic in changed.items():
            if (mailing := mailings.get(mailing_id)) is None:
                topic.fail(lambda missing=mailing_id: NotFound(Kind.MAILING, missing))  # type: ignore[misc]
                self._forget(topic)
            else:
                topic.publish(mailing, self._encode)

    async def _unchanged(self, topics: Sequence[MailingTopic]) -> set[int]:
        """Return the scheduled mailings that are as they were last read, having put their next read off."""
        scheduled = {
            topic.mailing_id: (topic, topic.latest.mailing)
            for topic in topics
            if topic.latest is not None and topic.latest.mailing.state is MailingState.SCHEDULED
        }
        versions = await self._progress.versions(list(scheduled)) if scheduled else {}
        unchanged = set()
        for mailing_id, (topic, mailing) in scheduled.items():
            if versions.get(mailing_id) == (mailing.version, mailing.updated_at):
                topic.unchanged()
                unchanged.add(mailing_id)
        return unchanged
