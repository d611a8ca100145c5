"""The figures of the whole ledger: true, cheap, and never waited for long."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from dispatcher.model.states import MailingState
from server.domain.errors import DatabaseUnavailable
from server.observability.metrics import backlog as module
from server.observability.metrics.backlog import BacklogGauges
from server.storage.database import Database
from server.storage.reports import Backlog, BacklogStore, OpenWork
from tests.support.ledger import add_mailing

NOTHING = Backlog(work={}, backlog={}, mailings={"running": 1}, recheck_lag=0.0, stopped=False)


async def add_batch(pool: asyncpg.Pool, mailing_id: int, due_ago: float, leased: bool = False) -> None:
    await pool.execute(
        "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, lease_until)"
        " VALUES (1, $1, nextval('batch_no'), '{17}', now() - $2 * interval '1 s',"
        " CASE WHEN $3 THEN now() + interval '1 h' ELSE '-infinity' END)",
        mailing_id,
        due_ago,
        leased,
    )


async def add_pending(pool: asyncpg.Pool, mailing_id: int, count: int) -> None:
    await pool.execute(
        "INSERT INTO mailing_counts (bucket, mailing_id, status, reason, n)"
        " SELECT bucket, $1, 1, 0, $2 FROM buckets WHERE bucket < 2",
        mailing_id,
        count,
    )


async def test_how_things_stand_is_told_by_endpoint(pool: asyncpg.Pool) -> None:
    running = await add_mailing(pool, state=MailingState.RUNNING)
    other = await add_mailing(pool, state=MailingState.RUNNING, endpoint="sms")
    paused = await add_mailing(pool, state=MailingState.PAUSED, endpoint="sms")
    over = await add_mailing(pool, state=MailingState.COMPLETED)
    rated = await add_mailing(pool, state=MailingState.RUNNING)
    await pool.execute("UPDATE mailings SET max_rate = 1 WHERE id = $1", rated)
    await pool.execute("UPDATE mailings SET recheck_at = now() - interval '7 s' WHERE id = $1", other)
    await add_batch(pool, running, due_ago=10)
    await add_batch(pool, running, due_ago=500, leased=True)
    await add_batch(pool, rated, due_ago=900)
    await add_batch(pool, other, due_ago=-60)
    await add_batch(pool, paused, due_ago=800)
    for mailing_id, count in ((running, 10), (paused, 7), (over, 1000)):
        await add_pending(pool, mailing_id, count)
    assert not (await BacklogStore(Database(pool)).read()).stopped
    await pool.execute("UPDATE dispatch_settings SET stopped = true")
    found = await BacklogStore(Database(pool)).read()
    assert found.stopped
    assert {name: one[:2] for name, one in found.work.items()} == {"default": (3, 1), "sms": (2, 0)}
    assert found.work["default"].lag == pytest.approx(10, abs=5)
    assert found.work["sms"].lag == 0
    assert found.backlog == {"default": 20, "sms": 14}
    assert found.mailings == {"scheduled": 0, "running": 3, "paused": 1}
    assert found.recheck_lag == pytest.approx(7, abs=5)
    assert found.numbers_used == 0


async def test_an_empty_ledger_has_zeros_for_each_endpoint(pool: asyncpg.Pool) -> None:
    samples = BacklogGauges(BacklogStore(Database(pool)).read, ["sms", "push"])
    assert samples.samples() == {}
    await samples.refresh()
    assert samples.samples()["mailing_backlog_messages"] == {("push",): 0, ("sms",): 0}
    assert samples.samples()["mailing_due_lag_seconds"] == {("push",): 0, ("sms",): 0}
    await samples.close()


async def test_many_scrapes_are_one_reading() -> None:
    """Fails when what was read is not kept."""
    readings = 0

    async def read() -> Backlog:
        nonlocal readings
        readings += 1
        await asyncio.sleep(0)
        return NOTHING

    samples = BacklogGauges(read, [])
    await asyncio.gather(*(samples.refresh() for _ in range(5)))
    await samples.refresh()
    assert readings == 1
    await samples.close()


async def test_a_scrape_does_not_wait_for_a_slow_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the reading itself is awaited: this one never ends."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    samples = BacklogGauges(asyncio.Event().wait, [])  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await samples.refresh()
        await samples.refresh()
        assert samples.samples() == {}
        await samples.close()


async def test_what_cannot_be_read_is_left_out_and_not_told_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 0.0)
    answers: list[Backlog | Exception] = [
        NOTHING._replace(work={"sms": OpenWork(1, 0, 0.0)}),
        DatabaseUnavailable(),
        RuntimeError("a defect"),
        NOTHING,
    ]

    async def read() -> Backlog:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    samples = BacklogGauges(read, [])
    seen = []
    for _ in range(4):
        await samples.refresh()
        seen.append("mailing_mailings" in samples.samples())
    assert seen == [True, False, False, True]
    await samples.close()
