"""Between requests that are handed their answers and those that are awaited.

`ask` awaits a single request: for probes and traces. A `TaskSender` has a task for each of its
requests: for what awaits anyhow, such as httpx. The usual path of a message needs neither.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import monotonic

from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass
from dispatcher.ports import MayStart, Request, Sender
from dispatcher.tasks import cancel

log = logging.getLogger(__name__)


class AwaitedRequest:
    """A request whose answer is awaited. Implements `dispatcher.ports.Request`."""

    def __init__(
        self,
        message_id: int,
        phone: str,
        text: str,
        at_most_once: bool = False,
        may_start: MayStart | None = None,
        values: Sequence[str] = (),
    ) -> None:
        self.values = values
        self.message_id = message_id
        self.phone = phone
        self.text = text
        self.at_most_once = at_most_once
        self.answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._may_start = may_start

    def may_start(self) -> bool:
        """Return what who awaits the answer says; they may leave it out."""
        return self._may_start is None or self._may_start()

    def answered(self, answer: Answer | None) -> None:
        """Hand the answer to who awaits it."""
        if not self.answer.done():  # nobody may wait for it any more
            self.answer.set_result(answer)


async def ask(
    sender: Sender,
    message_id: int,
    phone: str,
    text: str,
    at_most_once: bool = False,
    may_start: MayStart | None = None,
    values: Sequence[str] = (),
) -> Answer | None:
    """Send one request and return what it came to, None if it was not started."""
    request = AwaitedRequest(message_id, phone, text, at_most_once, may_start, values)
    sender.send(request)
    return await request.answer


class TaskSender(ABC):
    """A sender with a task per request; `post` is one of them from its beginning to its end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def post(self, request: Request) -> Answer | None:
        """POST the message of a request and return what it came to. See `dispatcher.ports.Sender.send`."""

    def renew(self, endpoint: Endpoint) -> None:  # noqa: B027 - most have none
        """Use other secrets; a sender that has none does nothing."""

    def send(self, request: Request) -> None:
        """Begin the task of a request. See `dispatcher.ports.Sender.send`."""
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: Request) -> None:
        began = monotonic()
        try:
            answer = await self.post(request)
        except Exception:
            # A defect in a sender must not lose a message: it may have been sent.
            log.exception("the sender failed")
            answer = Answer(0, b"", None, ErrorClass.PROTOCOL, True, monotonic() - began)
        request.answered(answer)

    async def close(self) -> None:
        """End the tasks that are left; their requests are not answered any more."""
        await cancel(*self._tasks)
