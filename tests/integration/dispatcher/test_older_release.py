"""A database passes from the release that wrote a row per client at expansion to this one, with a mailing half sent.

What the older release says to the database is in `sql/older_release.sql`. It may go on recording what it
holds, and can neither claim nor take in anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.states import Status
from server.config import Settings
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.migrate import load_migrations, migrate
from server.storage.pool import open_pool
from server.storage.queries import load_queries
from tests.integration.dispatcher.conftest import ENDPOINT, SETTINGS
from tests.integration.dispatcher.mailings import completed
from tests.support.endpoints import ScriptedSender
from tests.support.ledger import add_clients, add_mailing, audit, statuses

OLDER = load_queries("older_release.sql", "tests.integration.dispatcher")
LAST = "0010"
EVERYBODY = dict.fromkeys(("tags", "operator_codes", "timezones", "attributes", "chosen_ids"))
CLIENTS = 3 * 16
BUCKETS = range(16)


@pytest.fixture
async def pool(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on a database of the older release."""
    older = [one for one in load_migrations() if one.version <= LAST]
    with monkeypatch.context() as patch:
        patch.setattr("server.storage.migrate.load_migrations", lambda: older)
        await migrate(empty_dsn)
    async with open_pool(empty_dsn, Settings()) as opened:
        yield opened


async def expand(pool: asyncpg.Pool, mailing_id: int, bucket: int, limit: int, position: int = 0) -> asyncpg.Record:
    step = {"batch_size": 2, "version": 1, "limit": limit, "position": position}
    return await pool.fetchrow(*OLDER["expand"].bind(bucket=bucket, mailing_id=mailing_id, **step, **EVERYBODY))


async def claim(pool: asyncpg.Pool, mailing_id: int, bucket: int, most: int = 1) -> Sequence[asyncpg.Record]:
    statement = OLDER["claim"].bind(
        bucket=bucket,
        mailing_id=mailing_id,
        version=1,
        state=2,
        most=most,
        lease=timedelta(minutes=1),
        replica_id=uuid4(),
        held=[],
    )
    rows: Sequence[asyncpg.Record] = await pool.fetch(*statement)
    return rows


async def settle(
    pool: asyncpg.Pool, mailing_id: int, bucket: int, batch: asyncpg.Record, sent: Sequence[int], **columns: Any
) -> bool:
    values = {
        **{name: [] for name in OLDER["settle"].names},
        "bucket": bucket,
        "mailing_id": mailing_id,
        "batch_no": batch["no"],
        "fence": batch["fence"],
        "endpoint": "default",
        "client_ids": sent,
        "first_id": sent[0],
        "last_id": sent[-1],
        "attempts_before": [0],
        "statuses": [Status.DELIVERED],
        "reasons": [0],
        "attempted": [1],
        "uncounted": [0],
        "maybe_sent": [False],
        "endpoint_statuses": [200],
        "endpoint_codes": [None],
        "durations": [5],
        "done": True,
        **columns,
    }
    return bool((await pool.fetchrow(*OLDER["settle"].bind(**values)))["held"])


async def half_sent(pool: asyncpg.Pool) -> int:
    """Return a running mailing that the older release has taken two thirds of the clients into."""
    await add_clients(pool, CLIENTS)
    mailing_id = await add_mailing(pool)
    await pool.execute("UPDATE mailings SET state = 2")
    await pool.execute(
        "INSERT INTO expansions (bucket, mailing_id, change_seq) SELECT bucket, $1, 1 FROM buckets", mailing_id
    )
    for bucket in BUCKETS:
        assert (await expand(pool, mailing_id, bucket, 2))["inserted"] == 2
    return mailing_id


async def delivers_the_rest(pool: asyncpg.Pool, mailing_id: int) -> ScriptedSender:
    """Let this release go on until the mailing is over."""
    sender = ScriptedSender()
    dispatcher = Dispatcher(dispatcher_storage(DispatcherDatabase(pool), uuid4()), [(ENDPOINT, sender)], SETTINGS)
    running = asyncio.create_task(dispatcher.run())
    try:
        await completed(pool, mailing_id)
    finally:
        await dispatcher.stop(grace=5.0)
        await running
    return sender


async def test_a_mailing_half_sent_goes_on_where_it_was(pool: asyncpg.Pool, empty_dsn: str) -> None:
    """One batch is settled, one in part, one is held by the older release and recorded after the upgrade."""
    mailing_id = await half_sent(pool)
    (whole,), (part,), (held,) = [await claim(pool, mailing_id, bucket) for bucket in (0, 1, 2)]
    assert await settle(pool, mailing_id, 0, whole, whole["client_ids"])
    assert await settle(pool, mailing_id, 1, part, part["client_ids"][:1], done=False)
    rows = await pool.fetch("SELECT ctid::text, client_id FROM messages ORDER BY 1")
    assert await migrate(empty_dsn)
    assert await pool.fetch("SELECT ctid::text, client_id FROM messages ORDER BY 1") == rows, "no row is rewritten"
    assert await settle(pool, mailing_id, 1, part, part["client_ids"][1:])
    assert await settle(pool, mailing_id, 2, held, held["client_ids"])
    sender = await delivers_the_rest(pool, mailing_id)
    assert await statuses(pool, mailing_id) == {Status.DELIVERED: CLIENTS}
    assert len(sender.requests) == CLIENTS - 6
    assert await audit(pool) == []


async def test_a_retry_that_the_older_release_records_is_sent(pool: asyncpg.Pool, empty_dsn: str) -> None:
    mailing_id = await half_sent(pool)
    (batch,) = await claim(pool, mailing_id, 0)
    await migrate(empty_dsn)
    now = await pool.fetchval("SELECT now()")
    again, ids = {"statuses": [Status.PENDING], "reasons": [3], "due_times": [now, now]}, batch["client_ids"]
    assert await settle(pool, mailing_id, 0, batch, ids, **again, requeued_ids=ids, requeued_times=[now, now])
    sender = await delivers_the_rest(pool, mailing_id)
    assert len(sender.requests) == CLIENTS
    assert await statuses(pool, mailing_id) == {Status.DELIVERED: CLIENTS}
    assert await audit(pool) == []


async def test_the_older_release_claims_nothing_after_the_upgrade(pool: asyncpg.Pool, empty_dsn: str) -> None:
    mailing_id = await half_sent(pool)
    await migrate(empty_dsn)
    plan = dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan
    (expansion,) = await plan.expandable(10)
    for bucket in BUCKETS:
        await plan.expand(expansion, bucket, 500, 1000)
    assert await pool.fetchval("SELECT count(*) FROM batches WHERE fresh") == 16
    assert [await claim(pool, mailing_id, bucket, 9) for bucket in BUCKETS] == [[]] * 16
    with pytest.raises(asyncpg.CheckViolationError):  # nor can an operator let it, through a server of that release
        await pool.execute("UPDATE dispatch_settings SET paused = false")


async def test_the_older_release_takes_nobody_in_after_the_upgrade(pool: asyncpg.Pool, empty_dsn: str) -> None:
    mailing_id = await half_sent(pool)
    await migrate(empty_dsn)
    with pytest.raises(asyncpg.NotNullViolationError):
        await expand(pool, mailing_id, 0, 1000, position=32)
    await pool.execute("UPDATE mailings SET audience_mode = 1")
    before = await statuses(pool, mailing_id)
    await pool.execute(*OLDER["expand_anew"].bind(ids=[mailing_id]))
    with pytest.raises(asyncpg.NotNullViolationError):
        await expand(pool, mailing_id, 0, 1000, position=-1)
    assert await statuses(pool, mailing_id) == before


async def test_a_pass_that_the_older_release_began_anew_finds_who_is_in(pool: asyncpg.Pool, empty_dsn: str) -> None:
    """It knows nothing of how far earlier passes reached. Fails when each pass believes to be the first."""
    await migrate(empty_dsn)
    await add_clients(pool, CLIENTS)
    mailing_id = await add_mailing(pool)
    plan = dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan
    await plan.start_due()
    await pool.execute("UPDATE mailings SET audience_mode = 1")
    for inserted in (3, 0):
        (expansion,) = await plan.expandable(10)
        steps = [await plan.expand(expansion, bucket, 500, 1000) for bucket in BUCKETS]
        assert [step.inserted for step in steps] == [inserted] * 16
        await pool.execute(*OLDER["expand_anew"].bind(ids=[mailing_id]))
    assert await audit(pool) == []
