"""Writes the responses of streams, and ends streams whose callers do not read.

gRPC would leave the generator of a stream to the garbage collector when its caller goes away, and
with it everything it holds. Here the generator is closed at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from server.api.deadlines import Deadlines, Task, current_task
from server.api.handlers import Context
from server.domain.errors import ReaderTooSlow


class ResponseWriter:
    """Takes responses from a stream's generator and writes them to its connection.

    When a write takes more than `patience` seconds, ReaderTooSlow is thrown into the generator.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._deadlines = Deadlines(patience)

    async def write_all(
        self, responses: AsyncGenerator[Any, None], context: Context, sent: Callable[[], None] = lambda: None
    ) -> None:
        """Return when all are written; `sent` is called for each."""
        task = current_task()
        async with aclosing(responses):
            async for response in responses:
                sent()
                try:
                    await self._write(response, context, task)
                except TimeoutError:
                    await responses.athrow(ReaderTooSlow())

    async def _write(self, response: Any, context: Context, task: Task) -> None:
        """Return when the connection has taken the response. Raise TimeoutError if the write was given up."""
        self._deadlines.begin(task)
        try:
            await context.write(response)
        except asyncio.CancelledError:
            if self._deadlines.passed(task):
                raise TimeoutError from None
            raise
        finally:
            self._deadlines.end(task)
