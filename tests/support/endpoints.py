"""A scripted sender behind the `Sender` port: for what the dispatcher does with answers.

How real sockets behave is proven in tests/conformance and with real processes in tests/e2e.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from dispatcher.delivery.awaiting import TaskSender
from dispatcher.model.endpoints import Answer
from dispatcher.model.states import ErrorClass
from dispatcher.ports import Request

OK = b'{"code":0,"message":"OK"}'


def answer(status: int = 200, body: bytes = OK, retry_after: str | None = None) -> Answer:
    """Return a complete answer."""
    return Answer(status, body, retry_after, ErrorClass.NONE, True, 0.001)


def broken(error: ErrorClass, sent: bool = True) -> Answer:
    """Return a request that got no answer."""
    return Answer(0, b"", None, error, sent, 0.001)


class ScriptedSender(TaskSender):
    """Answers as the script says and remembers every request."""

    def __init__(self, script: Callable[[int, int], Answer] | None = None, delay: float = 0.0) -> None:
        """`script` gets the client's id and the number of the request for it, from 1."""
        super().__init__()
        self.requests: list[tuple[int, str, str, float]] = []
        self.counts: Counter[int] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen = asyncio.Condition()
        self.answering = 0
        """The message whose request the script is being asked about."""
        self.in_flight = 0
        self.most_in_flight = 0
        self._script = script or (lambda client_id, number: answer())
        self.delay = delay

    async def post(self, request: Request) -> Answer | None:
        """Remember the request, wait for the gate, answer by the script."""
        message_id = request.message_id
        if not request.may_start():
            return None
        self.requests.append((message_id, request.phone, request.text, time.monotonic()))
        self.counts[message_id] += 1
        number = self.counts[message_id]
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with self.seen:
                self.seen.notify_all()
            if self.delay:
                await asyncio.sleep(self.delay)
            await self.gate.wait()
            self.answering = message_id
            return self._script(message_id & 0xFFFFFFFF, number)
        finally:
            self.in_flight -= 1

    async def until(self, requests: int, within: float = 15.0) -> None:
        """Return when so many requests have come; fail after `within` seconds."""
        async with asyncio.timeout(within), self.seen:
            await self.seen.wait_for(lambda: len(self.requests) >= requests)
