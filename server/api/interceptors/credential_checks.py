"""Ends streams whose credentials have ended: expired, revoked, removed, or robbed of the method's scope.

A call is short, and is checked when it starts; a stream goes on for an hour. One timer checks all streams in
turn, a tenth of them a second. The error that ends a stream carries the resume token of what its caller has got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

from server.domain.errors import DomainError, Resumable
from server.domain.resume_tokens import begin_place

Check = Callable[[], None]

INTERVAL = 10.0
"""Seconds between two checks of a stream."""


class CredentialChecks:
    """The streams that are open, each with what raises when its caller may not have it any more."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._tick = interval / 10
        self._streams: dict[_Stream, None] = {}  # the one checked longest ago first
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def during(self, check: Check) -> Iterator[None]:
        """Run the block, which is a stream, as long as `check` raises nothing; then raise what it raised."""
        stream, place = _Stream(check), begin_place()
        self._streams[stream] = None
        if self._timer is None:
            self._schedule(stream.loop)
        try:
            yield
        except asyncio.CancelledError:
            if stream.ended is not None and stream.task.uncancel() == 0:
                if isinstance(stream.ended, Resumable):
                    stream.ended.resume_token = place.token
                raise stream.ended from None
            raise
        finally:
            del self._streams[stream]

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._tick, self._check_some, loop)

    def _check_some(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for stream in [*islice(self._streams, -(-len(self._streams) // 10))]:
            del self._streams[stream]
            self._streams[stream] = None
            stream.check_again()
        if self._streams:
            self._schedule(loop)


class _Stream:
    __slots__ = ("_check", "ended", "loop", "task")

    def __init__(self, check: Check) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served by tasks"
        self.task = task
        self.loop = task.get_loop()
        self.ended: DomainError | None = None
        self._check = check

    def check_again(self) -> None:
        """Cancel the stream if its check raises, once."""
        if self.ended is None:
            try:
                self._check()
            except DomainError as error:
                self.ended = error
                self.task.cancel()
