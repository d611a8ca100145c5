"""An endpoint that refuses us: its messages wait, nobody fails, and it comes back by itself."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from dispatcher import breaker_sync
from dispatcher.model.endpoints import Answer
from dispatcher.model.states import BreakerState, Status, Suspension
from dispatcher.refusals import RUN, TRIES
from server.config import Settings
from server.runtime.local_dispatcher import LocalDispatcher
from server.storage.database import Database
from server.storage.endpoints import EndpointStore
from tests.integration.dispatcher.conftest import ENDPOINT, Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

CLIENTS = 3000


class Wall(ScriptedSender):
    """An endpoint that gives everybody the same answer until `up` is set."""

    def __init__(self, refusal: Answer) -> None:
        super().__init__(lambda _, __: answer() if self.up else refusal, delay=0.002)
        self.up = False


async def suspension(pool: asyncpg.Pool) -> int | None:
    reason: int | None = await pool.fetchval("SELECT suspension FROM endpoints WHERE breaker <> 1")
    return reason


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes come quickly."""
    monkeypatch.setattr(breaker_sync, "PROBE_FIRST", 0.1)
    monkeypatch.setattr(breaker_sync, "PROBE_MOST", 0.2)


@pytest.mark.parametrize(
    ("refusal", "reason", "failed"),
    [
        (answer(401), Suspension.CREDENTIALS, 0),
        (answer(403), Suspension.CREDENTIALS, 0),
        (answer(407), Suspension.CREDENTIALS, 0),
        (answer(404), Suspension.NOT_FOUND, RUN),
        (answer(200, b'{"code": 9}'), Suspension.REFUSES_ALL, RUN),
        (answer(301), Suspension.REFUSES_ALL, RUN),
    ],
    ids=["401", "403", "407", "404", "code", "301"],
)
async def test_an_endpoint_that_refuses_everybody_fails_nobody(
    pool: asyncpg.Pool, start: Start, refusal: Answer, reason: Suspension, failed: int
) -> None:
    await add_clients(pool, CLIENTS)
    mailing = await add_mailing(pool, max_attempts=2, backoff=0.01)
    wall = Wall(refusal)
    start(wall)
    await eventually(lambda: suspension(pool), lambda found: found == reason)
    await eventually(lambda: pool.fetchval("SELECT probes FROM endpoints"), lambda made: (made or 0) >= 3)
    assert (await statuses(pool, mailing))[Status.FAILED] <= failed
    assert len(wall.requests) < 500, "who refuses everybody is not hammered"
    wall.up = True
    await completed(pool, mailing)
    found = await statuses(pool, mailing)
    assert found[Status.FAILED] <= failed
    assert found[Status.DELIVERED] == CLIENTS - found[Status.FAILED]
    assert await pool.fetchval("SELECT (breaker, suspension, last_error) = (1, 0, '') FROM endpoints")
    assert await audit(pool) == []


async def test_why_an_endpoint_is_suspended_is_shown_and_logged_once(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 100)
    await add_mailing(pool, backoff=0.01)
    start(Wall(answer(401, b"token expired")))
    await eventually(lambda: pool.fetchval("SELECT probes FROM endpoints"), lambda made: (made or 0) >= 3)
    health = (await EndpointStore(Database(pool)).health(["default"]))["default"]
    assert health.breaker is not BreakerState.CLOSED
    assert health.suspension is not None
    assert health.suspension.reason is Suspension.CREDENTIALS
    assert "(HTTP 401): token expired" in health.suspension.detail
    assert health.suspension.since < health.suspension.until
    events = await pool.fetch("SELECT details FROM log WHERE event = 'breaker.opened'")
    assert len(events) == 1
    assert '"credentials"' in events[0]["details"]


async def test_a_message_alone_refused_among_successes_fails(pool: asyncpg.Pool, start: Start) -> None:
    clients = await add_clients(pool, 200)
    mailing = await add_mailing(pool, max_attempts=2, backoff=0.01)
    sender = ScriptedSender(lambda client, _: answer(403 if client == clients[50] else 200), delay=0.002)
    start(sender)
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 199, Status.FAILED: 1}
    assert max(sender.counts.values()) <= TRIES + 1


async def test_who_keeps_the_credentials_learns_that_they_are_refused(pool: asyncpg.Pool) -> None:
    await add_clients(pool, 5)
    mailing = await add_mailing(pool, backoff=0.01)
    wall, names = Wall(answer(401)), list[str]()
    dispatcher = LocalDispatcher(pool, [(ENDPOINT, wall)], Settings())
    dispatcher.refused.connect(names.append)
    running = asyncio.create_task(dispatcher.run())
    await eventually(lambda: names, bool)
    wall.up = True
    await completed(pool, mailing)
    assert names == ["default"]
    await dispatcher.stop(grace=5.0)
    await running
