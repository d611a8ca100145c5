"""The senders that must conform, and the loops they run on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.delivery.awaiting import ask
from dispatcher.delivery.http1 import FastSender
from dispatcher.delivery.httpx_sender import HttpxSender
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.ports import Sender
from server.endpoints.renewal import Renew

TOKEN = "token-of-the-endpoint"
PATIENT = 8.0
"""The total timeout, in seconds, of a request that is to be answered."""

HASTY = 0.5
"""The total timeout of one that is not."""


@dataclass(frozen=True)
class Contender:
    """A sender on a loop."""

    make: Callable[[Endpoint], Sender]
    loop: str

    @property
    def is_httpx(self) -> bool:
        return self.make is HttpxSender

    def run(self, case: Coroutine[Any, Any, None]) -> None:
        """Run a case on a loop of its own; whatever the loop would only log fails it."""
        complaints: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=_loop_factory(self.loop)) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
            runner.run(case)
        assert not complaints, complaints


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


LOOPS = ["asyncio"] if sys.platform == "win32" else ["uvloop", "asyncio"]
CONTENDERS = {
    **{f"fast-{loop}": Contender(FastSender, loop) for loop in LOOPS},
    **{f"httpx-{loop}": Contender(HttpxSender, loop) for loop in LOOPS},
}


def endpoint(url: str, total_timeout: float = PATIENT, **changes: Any) -> Endpoint:
    """Return an endpoint with the suite's limits."""
    settings: dict[str, Any] = {"connect_timeout": total_timeout, "max_response_bytes": 16 * 1024, **changes}
    return Endpoint("tested", url, TOKEN, total_timeout, **settings)


def renewing(sender: Sender) -> Renew:
    """Return what gives a sender the secrets of its endpoint."""
    return lambda one: sender.renew(one.endpoint)


async def nothing_is_left() -> None:
    """Return when the caller's is the only task left; fail if the others do not end."""
    me = asyncio.current_task()
    if others := [task for task in asyncio.all_tasks() if task is not me]:
        _, unfinished = await asyncio.wait(others, timeout=5.0)
        assert unfinished == set()


async def deliver(
    sender: Sender, message_id: int, phone: str, text: str, at_most_once: bool = False, values: Sequence[str] = ()
) -> Answer:
    """Send a message that may start whenever there is a connection."""
    answer = await ask(sender, message_id, phone, text, at_most_once, values=values)
    assert answer is not None
    return answer
