"""Shared reads: pages that watch the same thing with the same credentials share one call of the API.

A topic keeps the last value and the last failure, and begins again by itself while the service is away. It
ends some seconds after its last reader has left. Readers see the newest value, not each one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, NamedTuple

import grpc

from mailing.errors import MailingError

LINGER = 5.0
"""Seconds that a topic stays without readers: a page that loads another one finds it warm."""

FIRST_WAIT = 2.0
"""Seconds that a page waits for the first value of what it shows."""

_BACKOFF = (0.25, 0.5, 1.0, 2.0, 3.0)
_FINAL = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND,
          grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}  # fmt: skip
_log = logging.getLogger(__name__)

Source = Callable[[], AsyncIterator[Any]]


class Read(NamedTuple):
    """What a topic reads: a name, which begins with the digest of the credentials, and how."""

    key: Hashable
    source: Source


class Topic:
    """One shared read. `version` grows with each value and failure; `error` is None while it goes well.

    It is `fresh` when the value is not older than the last change of the person whose read it is.
    """

    def __init__(self, source: Source) -> None:
        self.value: Any = None
        self.error: MailingError | None = None
        self.version = 0
        self.fresh = False
        self.ended = False
        self.readers = 0
        self.left_at = monotonic()
        self._source = source
        self._waiting: set[asyncio.Event] = set()
        self.task = asyncio.create_task(self._run())

    def restart(self) -> None:
        """Read anew, because the reader has just changed something; until then the last value stays."""
        self.task.cancel()
        self.fresh = self.ended = False
        self.task = asyncio.create_task(self._run())

    def wake(self, event: asyncio.Event) -> None:
        """Set `event` at each change from now on."""
        self._waiting.add(event)

    def forget(self, event: asyncio.Event) -> None:
        """Set `event` no more."""
        self._waiting.discard(event)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async for value in self._source():
                    self._changed(value, None)
                    failures = 0
                self.ended = True
                return
            except MailingError as error:
                self._changed(self.value, error)
                if error.code in _FINAL:
                    return
            await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            failures += 1

    def _changed(self, value: Any, error: MailingError | None) -> None:
        self.value, self.error = value, error
        self.version += 1
        self.fresh = True
        for event in self._waiting:
            event.set()


class Topics:
    """All topics of a console."""

    def __init__(self) -> None:
        self._topics: dict[Hashable, Topic] = {}

    def __len__(self) -> int:
        return len(self._topics)

    @asynccontextmanager
    async def reading(self, read: Read) -> AsyncIterator[Topic]:
        """Lend the topic of this read, begun if nobody reads it yet."""
        topic = self._topics.get(read.key)
        if topic is None or (topic.task.done() and not topic.ended):
            topic = self._topics[read.key] = Topic(read.source)
        topic.readers += 1
        try:
            yield topic
        finally:
            topic.readers -= 1
            topic.left_at = monotonic()

    def changed(self, digest: str) -> None:
        """Read everything anew in the name of the person who has changed something."""
        for key, topic in list(self._topics.items()):
            if isinstance(key, tuple) and key[0] == digest:
                topic.restart()

    async def sweep(self) -> None:
        """End topics that nobody reads, for as long as it runs."""
        while True:
            await asyncio.sleep(1.0)
            for key, topic in list(self._topics.items()):
                if not topic.readers and monotonic() - topic.left_at > LINGER:
                    del self._topics[key]
                    topic.task.cancel()

    async def close(self) -> None:
        """End all topics."""
        tasks = [topic.task for topic in self._topics.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def first_values(topics: list[Topic], within: float = FIRST_WAIT) -> None:
    """Return when each topic has a value or a failure, or after `within` seconds."""
    event = asyncio.Event()
    for topic in topics:
        topic.wake(event)
    try:
        async with asyncio.timeout(within):
            while not all(topic.fresh for topic in topics):
                event.clear()
                await event.wait()
    except TimeoutError:
        _log.debug("the service has not answered within %s s", within)
    finally:
        for topic in topics:
            topic.forget(event)
