"""What all competitors share: the request with aiohttp, the clock, and the way they are called."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Job:
    """One run: `messages` messages with ids from `first_id`, by one number that the competitor can be tuned with."""

    dsn: str
    url: str
    messages: int
    first_id: int
    setting: int

    @property
    def ids(self) -> range:
        """The ids of the messages."""
        return range(self.first_id, self.first_id + self.messages)


class Poster:
    """Makes the request of the delivery protocol with aiohttp, as it comes, on warm connections."""

    def __init__(self, url: str, connections: int) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections), timeout=aiohttp.ClientTimeout(total=10)
        )

    async def post(self, message_id: int) -> None:
        """Deliver one message; raise RuntimeError when it is not accepted."""
        phone = 79000000000 + message_id % 1_000_000_000
        headers = {"Authorization": "Bearer bench", "Idempotency-Key": str(message_id)}
        body = {"id": message_id, "phone": phone, "text": f"Hello {phone}"}
        async with self._session.post(f"{self._url}{message_id}", json=body, headers=headers) as answer:
            if answer.status != 200 or (await answer.json(content_type=None))["code"] != 0:
                raise RuntimeError(f"message {message_id} was not accepted: {answer.status}")

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def main(run: Callable[[Job], Awaitable[tuple[float, int]]]) -> None:
    """Run the job the command line names and print seconds and the number of recorded outcomes."""
    dsn, url, messages, first_id, setting = sys.argv[1:]
    job = Job(dsn, url, int(messages), int(first_id), int(setting))

    async def whole() -> dict[str, Any]:
        seconds, recorded = await run(job)
        return {"seconds": seconds, "recorded": recorded}

    if sys.platform != "win32":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(whole())))
