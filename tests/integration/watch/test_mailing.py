"""WatchMailing: the present state, changes no faster than asked for, and the terminal state."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import asyncpg
import pytest

from dispatcher.model.states import MailingState
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import DeleteMailingRequest, PauseMailingRequest
from server.storage.database import Database
from server.storage.mailings import ProgressStore
from server.watch.mailing_hub import MailingHub
from tests.integration.api.calls import refused
from tests.integration.watch.calls import PATIENCE, Progress
from tests.integration.watch.conftest import Replica
from tests.integration.watch.ledger import Work
from tests.support.ledger import add_clients, add_mailing


async def test_the_present_state_comes_first_then_changes_then_the_end(
    pool: asyncpg.Pool, replica: Replica, work: Work
) -> None:
    await add_clients(pool, 64)
    mailing = await work.mailing()
    stream = Progress(replica, mailing.id, 50)
    first = await stream.read()
    assert first is not None
    assert (first.state, first.progress.pending) == (Mailing.STATE_RUNNING, 64)
    for batch in await work.claim_all(mailing):
        await work.settle(batch)
    await work.complete(mailing)
    states = await stream.rest()
    assert (states[-1].state, states[-1].progress.delivered) == (Mailing.STATE_COMPLETED, 64)
    delivered = [state.progress.delivered for state in states]
    assert delivered == sorted(delivered)


async def test_a_mailing_that_has_ended_is_sent_once(pool: asyncpg.Pool, replica: Replica) -> None:
    mailing_id = await add_mailing(pool, state=MailingState.COMPLETED)
    assert [state.id for state in await Progress(replica, mailing_id).rest()] == [mailing_id]


async def test_a_scheduled_mailing_is_followed_into_its_start(pool: asyncpg.Pool, replica: Replica) -> None:
    mailing_id = await add_mailing(pool, starts_in=3600.0)
    stream = Progress(replica, mailing_id, 50)
    first = await stream.read()
    assert first is not None
    assert first.state == Mailing.STATE_SCHEDULED
    # As the planner starts it: without a new version.
    await pool.execute("UPDATE mailings SET state = 2, updated_at = now() WHERE id = $1", mailing_id)
    second = await stream.read()
    assert second is not None
    assert second.state == Mailing.STATE_RUNNING


async def test_changes_made_through_the_api_are_seen(replica: Replica, work: Work) -> None:
    mailing = await work.mailing()
    stream = Progress(replica, mailing.id)
    await stream.read()
    await replica.mailings.PauseMailing(PauseMailingRequest(mailing_id=mailing.id))
    state = await stream.read()
    assert state is not None
    assert state.state == Mailing.STATE_PAUSED


async def test_an_unknown_mailing_is_not_found(replica: Replica) -> None:
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await Progress(replica, 99).read()


async def test_a_mailing_deleted_meanwhile_is_not_found(pool: asyncpg.Pool, replica: Replica) -> None:
    mailing_id = await add_mailing(pool, starts_in=3600.0)
    stream = Progress(replica, mailing_id, 50)
    await stream.read()
    await replica.mailings.DeleteMailing(DeleteMailingRequest(mailing_id=mailing_id))
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await stream.rest()


@pytest.mark.parametrize("milliseconds", [0, 49, -1])
async def test_the_interval_has_limits(replica: Replica, work: Work, milliseconds: int) -> None:
    mailing = await work.mailing()
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "min_interval"):
        await Progress(replica, mailing.id, milliseconds).read()


async def test_a_missing_id_is_named(replica: Replica) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id"):
        await Progress(replica, 0).read()


class CountingProgress(ProgressStore):
    """Counts the reads."""

    reads = 0

    async def read(self, ids):  # type: ignore[no-untyped-def]
        self.reads += 1
        return await super().read(ids)


async def test_a_thousand_watchers_share_reads_and_none_gets_too_many_states(pool: asyncpg.Pool, work: Work) -> None:
    await add_clients(pool, 64)
    mailing = await work.mailing(batch_size=1)
    batches = await work.claim_all(mailing)
    progress = CountingProgress(Database(pool))
    hub = MailingHub(progress, lambda read: str(read.progress.delivered).encode())
    times: list[list[float]] = [[] for _ in range(1000)]

    async def watch(seen: list[float]) -> bytes:
        body = b""
        async for view in hub.watch(mailing.id, 0.1):
            seen.append(view.at)
            body = view.body
        return body

    watchers = [asyncio.create_task(watch(seen)) for seen in times]
    async with asyncio.timeout(PATIENCE):
        for batch in batches:
            await work.settle(batch)
        await work.complete(mailing)
        assert set(await asyncio.gather(*watchers)) == {b"64"}
    gaps = [later - earlier for seen in times for earlier, later in pairwise(seen)]
    assert min(gaps) > 0.099
    assert progress.reads < 64 + len(max(times, key=len))
    await hub.close()
