"""What an endpoint's slow connections must not do to a mailing's end or pause, and what an endpoint's own rule does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg

from dispatcher.model.endpoints import Answer, SuccessRule
from dispatcher.model.states import MailingState, Status
from dispatcher.ports import MayStart, Request
from tests.integration.dispatcher.conftest import ENDPOINT, Start
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses


class Connecting(ScriptedSender):
    """A sender whose requests have no connection yet: they wait for it until `connected` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.connected = asyncio.Event()
        self.waiting: list[MayStart] = []

    async def post(self, request: Request) -> Answer | None:
        self.waiting.append(request.may_start)
        await self.connected.wait()
        return await super().post(request)

    async def may_start(self) -> list[bool]:
        """Return what those that wait would be told now."""
        return [ask() for ask in self.waiting]


def none_of_eight(allowed: list[bool]) -> bool:
    return allowed == [False] * 8


async def test_a_pause_reaches_requests_that_wait_for_a_connection(pool: asyncpg.Pool, start: Start) -> None:
    # Fails when the pool does not hand `may_start` on, or leaves the revoked lease out of it.
    await add_clients(pool, 200)
    mailing = await add_mailing(pool)
    start(sender := Connecting(), max_concurrency=8)
    await eventually(sender.may_start, lambda allowed: allowed == [True] * 8)
    await eventually(lambda: statuses(pool, mailing), lambda found: found.total() == 200)
    await pool.execute("UPDATE mailings SET state = $1", MailingState.PAUSED)
    await eventually(sender.may_start, none_of_eight)
    sender.connected.set()

    async def leased() -> int:
        count: int = await pool.fetchval("SELECT count(*) FROM batches WHERE lease_until > now()")
        return count

    await eventually(leased, lambda count: count == 0)
    assert sender.requests == []
    assert await statuses(pool, mailing) == {Status.PENDING: 200}
    assert await audit(pool) == []
    await pool.execute("UPDATE mailings SET state = $1", MailingState.RUNNING)
    await completed(pool, mailing)
    assert set(sender.counts.values()) == {1}
    assert await pool.fetchval("SELECT max(attempts) FROM ledger") == 1


async def test_an_end_reaches_requests_that_wait_for_a_connection(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 200)
    mailing = await add_mailing(pool, ends_in=1.0)
    start(sender := Connecting(), max_concurrency=8)

    async def ended() -> bool:
        return bool(await pool.fetchval("SELECT ends_at <= now() FROM mailings"))

    await eventually(ended, bool)  # before that, a busy machine may tell them to wait as well
    await eventually(sender.may_start, none_of_eight)
    sender.connected.set()
    await completed(pool, mailing)
    assert sender.requests == []
    assert await statuses(pool, mailing) == {Status.EXPIRED: 200}
    assert await audit(pool) == []


async def test_an_endpoint_says_in_its_own_way_what_it_took(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 20)
    mailing = await add_mailing(pool)
    said = {True: answer(200, b'{"status":"ok"}'), False: answer(200, b'{"status":"no","code":0}')}
    rule = SuccessRule(code_field="status", accepted=frozenset({"ok"}))
    start(ScriptedSender(lambda client, _: said[client % 4 != 0]), endpoint=replace(ENDPOINT, success=rule))
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 15, Status.FAILED: 5}
