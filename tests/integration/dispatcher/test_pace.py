"""An endpoint that asks for patience gets it from all replicas, at no cost, and its neighbour loses nothing."""

from __future__ import annotations

import time

import asyncpg

from dispatcher.model.endpoints import Answer
from dispatcher.model.states import Status, Suspension
from server.storage.database import Database
from server.storage.endpoints import EndpointStore
from tests.integration.dispatcher.conftest import Start
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

    def _take(self) -> Answer:
        now = time.monotonic()
        self.tokens, self.at = min(20.0, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < 1:
            return answer(429, retry_after="1")
        self.tokens -= 1
        return answer()


class Busy(ScriptedSender):
    """Asks for two seconds of patience until `up` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _, __: answer() if self.up else BUSY, delay=0.005)
        self.up = False


async def test_a_gateway_of_20_a_second_gets_18_and_delivers_all(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 300)
    mailing = await add_mailing(pool, max_attempts=1, backoff=0.1)
    began = time.monotonic()
    gateway = Gateway(20.0)
    start(gateway)
    await gateway.until(1)
    await eventually(lambda: statuses(pool, mailing), lambda found: found == {Status.DELIVERED: 300}, within=40.0)
    assert 280 / (time.monotonic() - began) >= 15.0, "18 in the long run: the first seconds find the rate"
    assert await audit(pool) == []


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
