"""An endpoint that asks for patience gets it from all replicas, at no cost, and its neighbour loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.endpoints import Answer
from dispatcher.model.states import Status, Suspension
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.endpoints import EndpointStore
from tests.integration.dispatcher.conftest import ENDPOINT, SETTINGS, Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

BUSY = answer(429, retry_after="2")


class Gateway(ScriptedSender):
    """Takes `rate` messages a second, 20 of them at once; answers the others 429."""

    def __init__(self, rate: float) -> None:
        super().__init__(lambda _, __: self._take(), delay=0.01)
        self.rate = rate
        self.tokens, self.at = 20.0, time.monotonic()
        self.taken: list[float] = []

    def _take(self) -> Answer:
        now = time.monotonic()
        self.tokens, self.at = min(20.0, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < 1:
            return answer(429, retry_after="1")
        self.tokens -= 1
        self.taken.append(now)
        return answer()

    def found_rate(self) -> float:
        """Return how many a second it took once the first hundred had shown what it takes, but for the last ones.

        Which of several replicas has these depends on how their shares turned out.
        """
        return (len(self.taken) - 161) / (self.taken[-61] - self.taken[100])


class Busy(ScriptedSender):
    """Asks for two seconds of patience until `up` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _, __: answer() if self.up else BUSY, delay=0.005)
        self.up = False


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_gateway_of_20_a_second_gets_18_and_delivers_all(
    pool: asyncpg.Pool, start: Start, replicas: int
) -> None:
    """Also from two replicas, of which each finds its own share out."""
    await add_clients(pool, 400)
    mailing = await add_mailing(pool, max_attempts=1, backoff=0.1)
    gateway = Gateway(20.0)
    for _ in range(replicas):
        start(gateway)
    await gateway.until(1)
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 400}, within=60.0)
    assert gateway.found_rate() >= 18.0
    assert await audit(pool) == []


@pytest.mark.parametrize("busy", [Busy, lambda: Gateway(20.0)], ids=["refuses all", "takes 20 a second"])
async def test_a_neighbour_is_as_fast_as_alone(pool: asyncpg.Pool, busy: Callable[[], ScriptedSender]) -> None:
    """Fails, by five times its time, when an endpoint that asks for patience is asked again and again.

    `python -m bench neighbour` measures how near it is, which needs a quiet machine.
    """
    await add_clients(pool, 4000)
    healthy, throttled = ScriptedSender(delay=0.002), busy()
    endpoints = [(replace(ENDPOINT, name=name), one) for name, one in (("ok", healthy), ("busy", throttled))]
    dispatcher = Dispatcher(dispatcher_storage(DispatcherDatabase(pool), uuid4()), endpoints, SETTINGS)
    running = asyncio.create_task(dispatcher.run())

    async def seconds() -> float:
        """Return how long the healthy endpoint's messages take, the best of six times."""
        found = []
        for _ in range(6):
            healthy.requests.clear()
            await completed(pool, await add_mailing(pool, endpoint="ok"))
            assert len(healthy.requests) == 4000
            found.append(healthy.requests[-1][3] - healthy.requests[0][3])
        return min(found)

    await seconds()  # the first ones find out how many requests at once are best
    alone = await seconds()
    await add_mailing(pool, max_attempts=1, backoff=0.1, endpoint="busy")
    await throttled.until(30)
    beside = await seconds()
    await dispatcher.stop(grace=5.0)
    await running
    assert beside <= 2 * alone + 0.1, f"{beside:.2f} s beside, {alone:.2f} s alone"


async def test_patience_costs_no_attempt_and_the_endpoint_is_not_hammered(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 1000)
    mailing = await add_mailing(pool, max_attempts=1, backoff=0.1)
    first, second = Busy(), Busy()
    start(first)
    await first.until(1)
    start(second)
    await first.until(66, within=20.0)
    paused = "SELECT paused_until > now() FROM endpoints"
    await eventually(lambda: pool.fetchval(paused), bool)
    health = (await EndpointStore(Database(pool)).health(["default"]))["default"]
    assert health.suspension is not None
    assert health.suspension.reason is Suspension.THROTTLED
    assert len(first.requests) + len(second.requests) < 200
    first.up = second.up = True
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 1000}
    assert await audit(pool) == []
