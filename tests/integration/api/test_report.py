"""GetMailingReport on a real server and database: exact, of one moment, and bounded.

The sums are compared while dispatchers settle, which fails when the report is read by single
statements instead of in one snapshot.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.dispatcher import Dispatcher
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.settings import DispatchSettings
from dispatcher.model.states import Reason, Status
from mailing.v1.client_service_pb2 import DeleteClientRequest
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingReportRequest, GetMailingReportResponse
from mailing.v1.message_pb2 import Message
from server.domain.reports import COARSE_STEP, LONGEST_COURSE, MOST_ENTRIES, bin_bounds
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.api.calls import add_client, refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import at, create, get
from tests.integration.api.rows import add_mailing
from tests.support import ledger
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually

ENDPOINT = Endpoint("default", "http://127.0.0.1:1/", "token")
MINUTE = 29_455_200


async def report(service: Service, mailing_id: int) -> GetMailingReportResponse:
    return await service.mailings.GetMailingReport(GetMailingReportRequest(mailing_id=mailing_id))


async def add_figures(pool: asyncpg.Pool, mailing_id: int, *figures: tuple[int, int, int, int]) -> None:
    """Add figures as settling writes them: (bucket, kind, key, n)."""
    await pool.executemany(
        "INSERT INTO mailing_figures (mailing_id, bucket, kind, key, n) VALUES ($1, $2, $3, $4, $5)",
        [(mailing_id, *figure) for figure in figures],
    )


async def add_counter(pool: asyncpg.Pool, mailing_id: int, *values: Any) -> None:
    """Add a counter: bucket, status, reason, n, first_at, last_at."""
    await pool.execute(
        "INSERT INTO mailing_counts (mailing_id, bucket, status, reason, n, first_at, last_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        mailing_id,
        *values,
    )


def window(start: time) -> dict[str, Any]:
    """Return the columns of clients who receive for a minute a day, in UTC."""
    return {"window_start": start, "window_length": timedelta(minutes=1), "timezone": "UTC"}


@asynccontextmanager
async def dispatching(pool: asyncpg.Pool, *senders: ScriptedSender) -> AsyncIterator[None]:
    """A dispatcher per sender."""
    settings = DispatchSettings(poll_max=0.1)
    running = [
        Dispatcher(dispatcher_storage(DispatcherDatabase(pool), uuid4()), [(ENDPOINT, one)], settings)
        for one in senders
    ]
    tasks = [asyncio.create_task(one.run()) for one in running]
    try:
        yield
    finally:
        for dispatcher, task in zip(running, tasks, strict=True):
            await dispatcher.stop(grace=5.0)
            await task


def assert_sums_agree(found: GetMailingReportResponse) -> None:
    """One moment: what is counted in several ways is as many in each."""
    progress = found.mailing.progress
    by_status = {one.status: one.count for one in found.statuses}
    assert sum(by_status.values()) == progress.total
    assert by_status.get(Message.STATUS_PENDING, 0) == progress.pending
    assert by_status.get(Message.STATUS_DELIVERED, 0) == progress.delivered
    settled = progress.total - progress.pending
    assert sum(one.count for one in found.attempts) == settled
    assert sum(one.count for one in found.reasons) == settled - progress.delivered
    assert sum(one.count for one in found.latencies) == progress.delivered
    assert sum(one.delivered for one in found.minutes) == progress.delivered
    assert sum(one.failed for one in found.minutes) == progress.failed


@pytest.mark.parametrize("mailing_id", [0, -1])
async def test_a_report_needs_an_id(service: Service, mailing_id: int) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id"):
        await report(service, mailing_id)


async def test_there_is_no_report_of_an_unknown_mailing(service: Service) -> None:
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await report(service, 4711)


async def test_the_report_of_a_scheduled_mailing_is_empty(service: Service) -> None:
    await add_client(service)
    made = await create(service, start_time=at(3600))
    found = await report(service, made.id)
    assert found.mailing == made
    assert [name.name for name, _ in found.ListFields()] == ["mailing", "step"]
    assert found.step.seconds == 60


async def test_the_report_of_a_mailing_to_nobody_is_empty(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service, audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
    async with dispatching(pool, ScriptedSender()):
        await eventually(lambda: get(service, made.id), lambda one: one.state == Mailing.STATE_COMPLETED)
    found = await report(service, made.id)
    assert [name.name for name, _ in found.ListFields()] == ["mailing", "step"]
    assert found.mailing.progress.total == 0


async def test_counters_and_figures_are_summed_over_buckets(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id, other = await add_mailing(pool), await add_mailing(pool)
    early, late, later = (datetime(2026, 1, 2, hour, tzinfo=UTC) for hour in (1, 2, 3))
    await add_counter(pool, mailing_id, 0, Status.DELIVERED, 0, 3, late, later)
    await add_counter(pool, mailing_id, 15, Status.DELIVERED, 0, 1, early, late)
    await add_counter(pool, mailing_id, 1, Status.FAILED, Reason.REFUSED, 1, late, late)
    await add_counter(pool, mailing_id, 1, Status.FAILED, Reason.ATTEMPTS_EXHAUSTED, 2, later, later)
    # What is left at 0 neither counts nor has times.
    await add_counter(pool, mailing_id, 2, Status.DELIVERED, 0, 0, early - timedelta(days=9), later + timedelta(days=9))
    await add_counter(pool, mailing_id, 2, Status.UNKNOWN, Reason.LEASE_LOST, 0, early, late)
    await add_counter(pool, other, 0, Status.DELIVERED, 0, 7, early, later)
    await add_figures(
        pool, mailing_id, (0, 1, 1, 3), (15, 1, 1, 2), (1, 1, 5, 2), (1, 1, 2, 0), (0, 2, 0, 3), (15, 2, 48, 1),
        (0, 3, MINUTE, 2), (15, 3, MINUTE, 1), (0, 3, MINUTE + 2, 1), (1, 4, MINUTE + 1, 1), (1, 4, MINUTE + 2, 2),
    )  # fmt: skip
    await add_figures(pool, other, (0, 1, 9, 7), (0, 2, 9, 7), (0, 3, MINUTE - 5, 7))
    found = await report(service, mailing_id)
    assert_sums_agree(found)
    assert [
        (one.status, one.count, one.first_time.ToDatetime(UTC), one.last_time.ToDatetime(UTC)) for one in found.statuses
    ] == [(Message.STATUS_DELIVERED, 4, early, later), (Message.STATUS_FAILED, 3, late, later)]
    assert [(one.reason, one.count) for one in found.reasons] == [
        (Message.REASON_ATTEMPTS_EXHAUSTED, 2),
        (Message.REASON_REFUSED, 1),
    ]
    assert [(one.attempts, one.count) for one in found.attempts] == [(1, 5), (5, 2)]
    lowest, highest = bin_bounds(48)
    assert [(one.lowest.ToMilliseconds(), one.highest.ToMilliseconds(), one.count) for one in found.latencies] == [
        (0, 0, 3),
        (lowest, highest, 1),
    ]
    assert (found.latency_p50.ToMilliseconds(), found.HasField("latency_p50")) == (0, True)
    assert lowest <= found.latency_p99.ToMilliseconds() <= highest
    assert [(one.time.seconds // 60 - MINUTE, one.delivered, one.failed) for one in found.minutes] == [
        (0, 3, 0),
        (1, 0, 1),
        (2, 1, 2),
    ]


@pytest.mark.parametrize(
    ("entries", "apart", "step"),
    [
        (MOST_ENTRIES, 1, 1),
        (MOST_ENTRIES + 1, 1, 2),
        (LONGEST_COURSE, 1, 2),
        (LONGEST_COURSE + 1, 1, 2),
        (LONGEST_COURSE * 2, 1, 2),
        # Few of them far apart stay minutes, but the early ones are left out.
        (1000, 10, 1),
        (1000, 11, 1),
    ],
)
async def test_a_long_course_is_bounded_and_loses_nothing_of_its_last_part(
    service: Service, pool: asyncpg.Pool, entries: int, apart: int, step: int
) -> None:
    mailing_id = await add_mailing(pool)
    figures = [(n % 16, 3 + n % 2, MINUTE + n * apart, n + 1) for n in range(entries)]
    await add_figures(pool, mailing_id, *figures)
    found = await report(service, mailing_id)
    assert found.step.seconds == step * 60
    assert len(found.minutes) <= MOST_ENTRIES
    last = max(key for _, _, key, _ in figures)
    begin = last // COARSE_STEP * COARSE_STEP + COARSE_STEP - LONGEST_COURSE
    expected: Counter[tuple[int, int]] = Counter()
    for _, kind, key, n in figures:
        if key >= begin:
            expected[kind, key // step * step] += n
    got = {(3, one.time.seconds // 60): one.delivered for one in found.minutes} | {
        (4, one.time.seconds // 60): one.failed for one in found.minutes
    }
    assert {key: n for key, n in got.items() if n} == expected
    times = [one.time.seconds for one in found.minutes]
    assert times == sorted(set(times))


async def test_the_database_s_bins_are_those_of_the_report(pool: asyncpg.Pool) -> None:
    rows = await pool.fetch(
        "SELECT latency_bin(ms) AS bin, min(ms) AS lowest, max(ms) AS highest FROM generate_series(0, 200000) ms"
        " GROUP BY 1 ORDER BY 1"
    )
    assert [(row["lowest"], row["highest"]) for row in rows[:-1]] == [bin_bounds(row["bin"]) for row in rows[:-1]]


async def test_a_delivery_with_every_kind_of_end_is_reported_as_it_was(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when expansion, settling or the deletion of a client leaves its messages out of the figures."""
    await ledger.add_clients(pool, 200, 1000)
    soon, late = ((datetime.now(UTC) + timedelta(hours=hours)).time() for hours in (2, 9))
    (gone,) = await ledger.add_clients(pool, 1, 3000, **window(soon))
    await ledger.add_clients(pool, 30, 2000, **window(late))
    mailing_id = await ledger.add_mailing(pool, ends_in=4 * 3600, max_attempts=2, backoff=0.02)

    def script(client_id: int, number: int) -> Any:
        if client_id % 10 == 0:
            return answer(400)
        return answer(503) if client_id % 10 == 1 or (client_id % 10 == 2 and number == 1) else answer()

    async with dispatching(pool, ScriptedSender(script)):
        settled = await eventually(
            lambda: report(service, mailing_id),
            lambda one: one.mailing.progress.expanded and one.mailing.progress.pending == 1,
        )
        assert_sums_agree(settled)
        await service.clients.DeleteClient(DeleteClientRequest(client_id=gone))
    found = await report(service, mailing_id)
    assert_sums_agree(found)
    assert {one.status: one.count for one in found.statuses} == {
        Message.STATUS_DELIVERED: 160,
        Message.STATUS_FAILED: 40,
        Message.STATUS_EXPIRED: 30,
        Message.STATUS_CANCELLED: 1,
    }
    assert [(one.reason, one.count) for one in found.reasons] == [
        (Message.REASON_WINDOW_NOT_BEFORE_END, 30),
        (Message.REASON_REFUSED, 20),
        (Message.REASON_ATTEMPTS_EXHAUSTED, 20),
        (Message.REASON_CLIENT_DELETED, 1),
    ]
    assert [(one.attempts, one.count) for one in found.attempts] == [(0, 31), (1, 160), (2, 40)]
    for one in found.statuses:
        assert one.first_time.ToNanoseconds() <= one.last_time.ToNanoseconds()
    assert await ledger.audit(pool) == []


async def test_all_sums_agree_while_dispatchers_settle(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when the statements of a report are not in one snapshot."""
    await ledger.add_clients(pool, 6000)
    mailing_id = await ledger.add_mailing(pool, max_attempts=2, backoff=0.02)

    def script(client_id: int, number: int) -> Any:
        return answer(503) if client_id % 50 == 0 and number == 1 else answer(400) if client_id % 50 == 1 else answer()

    seen = set()
    senders = [ScriptedSender(script, delay=0.002) for _ in range(2)]
    async with dispatching(pool, *senders), asyncio.timeout(60):
        while True:
            found = await report(service, mailing_id)
            assert_sums_agree(found)
            seen.add(found.mailing.progress.pending)
            if found.mailing.state == Mailing.STATE_COMPLETED:
                break
    assert len(seen) > 3
    assert found.mailing.progress.total == 6000
    assert await ledger.audit(pool) == []
