"""The model endpoint, and the sender through which one replica reaches it.

A request that has left arrives, whatever becomes of its sender. Answers may be late, lost,
negative or nonsense; the endpoint may refuse connections, ask for patience or hang for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from dispatcher import ports
from dispatcher.delivery.awaiting import TaskSender
from dispatcher.model.endpoints import Answer
from dispatcher.model.states import ErrorClass
from tests.simulation.promises import Promises, Request
from tests.simulation.world import World

OK = b'{"code":0}'

MISHAPS = ("refused", "rejected", "server", "throttled", "credentials", "unreadable", "hangs", "cut", "lost", "late")
"""What may become of a request that is not simply accepted."""


@dataclass
class Habits:
    """How the endpoint behaves: probabilities of each mishap, seconds, and its mood."""

    mishaps: dict[str, float] = field(default_factory=dict)
    latency: float = 0.05
    connecting: float = 0.0
    mood: str = "up"
    """up, away (no connections), busy (429), locked (401), broken (500) or hanging."""


class ModelEndpoint:
    """Takes requests; `processed` of a request says whether the client got the message."""

    def __init__(self, world: World, habits: Habits) -> None:
        self._world = world
        self.habits = habits

    def arrive(self, request: Request, reply: Callable[[Answer], None]) -> None:
        """A request has come."""
        mishap = self._mishap()
        request.processed = mishap in ("", "unreadable", "late", "lost")
        answer = self._answer(mishap)
        self._world.tell("endpoint gets", request.number, mishap or "ok")
        if answer is not None:
            latency = self._world.delay(0.001, self.habits.latency) + (1.5 if mishap == "late" else 0.0)
            self._world.after(latency, partial(reply, answer))

    def _mishap(self) -> str:
        mood = self.habits.mood
        if mood != "up":
            return {
                "away": "cut",
                "busy": "throttled",
                "locked": "credentials",
                "broken": "server",
                "hanging": "hangs",
            }[mood]
        drawn = self._world.random.random()
        for mishap, probability in self.habits.mishaps.items():
            drawn -= probability
            if drawn < 0:
                return mishap
        return ""

    def _answer(self, mishap: str) -> Answer | None:
        def complete(status: int, body: bytes = OK, retry_after: str | None = None) -> Answer:
            return Answer(status, body, retry_after, ErrorClass.NONE, True, 0.0)

        answers = {
            "refused": complete(404),
            "rejected": complete(200, b'{"code":7}'),
            "server": complete(500),
            "credentials": complete(401),
            "throttled": complete(429, OK, str(self._world.random.randint(0, 9))),
            "unreadable": complete(200, b"<html>"),
            "cut": Answer(0, b"", None, ErrorClass.DISCONNECT, True, 0.0),
            "lost": Answer(0, b"", None, ErrorClass.DISCONNECT, True, 0.0),
        }
        return None if mishap == "hangs" else answers.get(mishap) or complete(200)


class ModelSender(TaskSender):
    """Implements `ports.Sender` for the process called `name`, which lives on `loop`."""

    def __init__(
        self,
        world: World,
        endpoint: ModelEndpoint,
        promises: Promises,
        loop: asyncio.AbstractEventLoop,
        name: str,
        timeout: float,
    ) -> None:
        super().__init__()
        self._world = world
        self._endpoint = endpoint
        self._promises = promises
        self._loop = loop
        self._name = name
        self._timeout = timeout

    async def post(self, request: ports.Request) -> Answer | None:
        """Send a request as both real senders do: a connection first, then `may_start`, then the request."""
        world, habits = self._world, self._endpoint.habits
        began = world.now
        connecting = world.delay(0.0, habits.connecting)
        if habits.mood == "away":
            await asyncio.sleep(0.01)
            return Answer(0, b"", None, ErrorClass.CONNECT, False, world.now - began)
        if connecting > 0.0:
            await asyncio.sleep(connecting)
        if not request.may_start():
            return None
        started = self._promises.started(self._name, request.message_id, request.phone, request.text)
        answered: asyncio.Future[Answer] = self._loop.create_future()

        def reply(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        world.after(world.delay(0.0, 0.02), partial(self._endpoint.arrive, started, reply))
        try:
            async with asyncio.timeout(self._timeout):
                answer = await answered
        except TimeoutError:
            answer = Answer(0, b"", None, ErrorClass.TIMEOUT, True, 0.0)
        answer.duration = world.now - began
        self._promises.returned(started, answer)
        return answer
