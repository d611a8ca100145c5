"""Messages that were kept long enough go, whole partitions at once where they can; counters and reports stay."""

from __future__ import annotations

import asyncio
import csv
import gzip
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dispatcher.model.states import MailingState, Status
from mailing.v1.mailing_service_pb2 import GetMailingReportRequest, RetryMailingRequest
from mailing.v1.message_service_pb2 import GetMessageRequest, ListAttemptsRequest, ListMessagesRequest
from server.domain.message_retention import parse_retention
from server.storage.database import Database
from server.storage.message_archive import MessageArchive
from server.storage.message_retention import Retention
from server.storage.partitions import Partitions
from server.storage.removals import Removals
from server.storage.verification import Verification
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import get
from tests.support.ledger import add_mailing
from tests.support.locks import blocked, holding

CLIENTS = 64
ATTEMPTS = """
INSERT INTO attempts (bucket, mailing_id, client_id, number, at, endpoint, error_class, duration_ms, response_excerpt)
SELECT n % 16, $1, n, 1, now(), 'default', 9, 5, 'a "quoted", text' FROM generate_series(16, 15 + $2::int) n
"""
PARTITIONS = "SELECT suffix FROM ledger_partitions ORDER BY lower"


async def ended(pool: asyncpg.Pool, days: float, state: MailingState = MailingState.COMPLETED, **labels: str) -> int:
    """Add a mailing that has been over for so many days, half of its messages delivered, half cancelled in blocks."""
    mailing_id = await add_mailing(pool, state=state)
    half = CLIENTS // 2
    await pool.execute(
        "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, settled_at, status, attempts,"
        " duration_ms) SELECT n % 16, $1, n, now(), now(), now(), 2, 1, 7 FROM generate_series(16, 15 + $2::int) n",
        mailing_id,
        half,
    )
    await pool.execute(
        "INSERT INTO blocks (bucket, mailing_id, no, client_ids, created_at, due_at, settled_at, status, reason)"
        " SELECT bucket, $1, nextval('batch_no'), ARRAY[16 * 100 + bucket, 16 * 101 + bucket], now(), now(), now(),"
        " 5, 7 FROM buckets",
        mailing_id,
    )
    await pool.execute(ATTEMPTS, mailing_id, half)
    await pool.execute(
        "INSERT INTO mailing_counts (bucket, mailing_id, status, reason, n, attempts)"
        " SELECT bucket, $1, s.status, s.reason, 2, s.attempts FROM buckets,"
        " (VALUES (2, 0, 2), (5, 7, 0)) AS s (status, reason, attempts)",
        mailing_id,
    )
    await pool.execute(
        "INSERT INTO receipts (bucket, mailing_id, client_id, at, receipt, code, provider_id)"
        " VALUES (0, $1, 16, now(), 2, '', 'gw-1')",
        mailing_id,
    )
    await pool.execute(
        "UPDATE mailings SET updated_at = now() - $2::interval, labels = $3 WHERE id = $1",
        mailing_id,
        timedelta(days=days),
        "{" + ", ".join(f'"{name}": "{value}"' for name, value in labels.items()) + "}",
    )
    return mailing_id


async def expire(pool: asyncpg.Pool, rules: str, folder: Path | None = None) -> list[int]:
    """Hide what was kept long enough, and return which mailings that were."""
    database = Database(pool)
    archive = None if folder is None else MessageArchive(database, folder)
    return [one async for ids in Retention(database, parse_retention(rules), archive).expire() for one in ids]


async def remove(pool: asyncpg.Pool) -> None:
    removals = Removals(Database(pool))
    for mailing_id in await removals.pending():
        await removals.remove(mailing_id)


async def rows_of(pool: asyncpg.Pool, *mailing_ids: int) -> int:
    tables = " UNION ALL ".join(
        f"SELECT mailing_id FROM {table}" for table in ("messages", "attempts", "blocks", "receipts", "removals")
    )
    count: int = await pool.fetchval(f"SELECT count(*) FROM ({tables}) t WHERE mailing_id = ANY ($1)", mailing_ids)
    return count


async def suffixes(pool: asyncpg.Pool) -> list[str]:
    return [row["suffix"] for row in await pool.fetch(PARTITIONS)]


async def listed(service: Service, **asked: Any) -> Sequence[Any]:
    return (await service.messages.ListMessages(ListMessagesRequest(page_size=1000, **asked))).messages


async def test_messages_go_and_the_report_stays(service: Service, pool: asyncpg.Pool) -> None:
    await Partitions(Database(pool)).add_ahead()
    old, young = await ended(pool, 31), await ended(pool, 29)
    before = await get(service, old)
    assert await expire(pool, "30d") == [old]
    message = old << 32 | 16
    assert await listed(service, mailing_id=old) == []  # at once, before the rows are gone
    assert {one.mailing_id for one in await listed(service, client_id=16)} == {young}
    with refused("NOT_FOUND", "MESSAGE_NOT_FOUND"):
        await service.messages.GetMessage(GetMessageRequest(message_id=message))
    with refused("NOT_FOUND", "MESSAGE_NOT_FOUND"):
        await service.messages.ListAttempts(ListAttemptsRequest(message_id=message))
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        retry = RetryMailingRequest(mailing_id=old, statuses=[Status.FAILED])  # type: ignore[list-item]
        await service.mailings.RetryMailing(retry)
    await remove(pool)
    assert await rows_of(pool, old) == 0
    assert len(await listed(service, mailing_id=young)) == CLIENTS
    assert (await get(service, old)).progress == before.progress
    report = await service.mailings.GetMailingReport(GetMailingReportRequest(mailing_id=old))
    assert sum(one.count for one in report.statuses) == CLIENTS
    assert [one for one in await Verification(Database(pool)).run() if one.mailing_id == old] == []
    event = await pool.fetchval("SELECT details ->> 'messages' FROM log WHERE event = 'mailing.messages_removed'")
    assert event == str(CLIENTS)


async def test_a_whole_partition_is_emptied_and_dropped(pool: asyncpg.Pool) -> None:
    """Fails when rows are deleted one by one: their space would stay."""
    partitions = Partitions(Database(pool))
    await partitions.add_ahead()
    await ended(pool, 31)
    await ended(pool, 1)
    await expire(pool, "30d")
    await remove(pool)
    assert await pool.fetchval("SELECT pg_relation_size('messages_1') + pg_relation_size('attempts_1')") == 0
    assert await pool.fetchval("SELECT pg_relation_size('messages_2')") > 0
    assert await partitions.drop_emptied() == ["first", "1"]
    assert await suffixes(pool) == ["2", "3", "4"]


async def test_a_partition_with_messages_that_stay_loses_the_others(pool: asyncpg.Pool) -> None:
    """It waits a tenth longer for the others, and then goes step by step."""
    await pool.execute("SELECT add_ledger_partition_v1(1, 100)")
    first, second = await ended(pool, 31), await ended(pool, 1)
    assert await expire(pool, "30d") == []
    await pool.execute("UPDATE mailings SET updated_at = now() - interval '34 days' WHERE id = $1", first)
    assert await expire(pool, "30d") == [first]
    await remove(pool)
    assert await rows_of(pool, first) == 0
    assert await rows_of(pool, second) == CLIENTS + 16 + 1
    assert await Partitions(Database(pool)).drop_emptied() == ["first"]


async def test_a_label_has_a_rule_of_its_own(pool: asyncpg.Pool) -> None:
    await pool.execute("SELECT add_ledger_partition_v1(1, 100)")
    codes = await ended(pool, 7.5, purpose="otp")
    await ended(pool, 400, purpose="contract")
    other = await ended(pool, 91)
    rules = "90d, purpose=otp:7d, purpose=contract:keep"
    assert await expire(pool, rules) == []
    await pool.execute("UPDATE mailings SET updated_at = now() - interval '8 days' WHERE id = $1", codes)
    assert await expire(pool, rules) == [codes]
    assert await expire(pool, "80d, purpose=contract:keep") == [other]


async def test_what_is_not_over_stays_however_short_the_time(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when the state, or a batch that is still open, is not looked at."""
    states = (MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED)
    kept = [await ended(pool, 400, state) for state in states]
    open_yet = await ended(pool, 400, MailingState.CANCELLED)
    await pool.execute(
        "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at) VALUES (0, $1, 1, '{16}', now())", open_yet
    )
    assert await expire(pool, "1s") == []
    assert await rows_of(pool, *kept, open_yet) == 4 * (CLIENTS + 16 + 1)


async def test_a_mailing_that_is_retried_meanwhile_keeps_its_messages(
    service: Service, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """Its files are being written when it runs again. Fails when it is hidden as it was judged."""
    mailing_id = await ended(pool, 31)
    async with holding(pool, "LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE"):
        expiring = asyncio.create_task(expire(pool, "30d", tmp_path))
        await blocked(pool)
        await pool.execute("UPDATE mailings SET state = 2, updated_at = now() WHERE id = $1", mailing_id)
    assert await expiring == []
    assert len(await listed(service, mailing_id=mailing_id)) == CLIENTS


def table(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


async def test_files_have_every_message_before_it_goes(pool: asyncpg.Pool, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    mailing_id = await ended(pool, 31)
    assert await expire(pool, "30d", folder) == [mailing_id]
    assert names_in(folder) == [f"mailing-{mailing_id}-attempts.csv.gz", f"mailing-{mailing_id}-messages.csv.gz"]
    messages = table(folder / f"mailing-{mailing_id}-messages.csv.gz")
    ids = {mailing_id << 32 | n for n in range(16, 16 + CLIENTS // 2)}
    assert {int(one["message_id"]) for one in messages if one["status"] == "DELIVERED"} == ids
    assert [one["reason"] for one in messages if one["status"] == "CANCELLED"] == ["MAILING_CANCELLED"] * (CLIENTS // 2)
    (received,) = (one for one in messages if one["receipt"])
    assert (received["client_id"], received["receipt"], received["provider_id"]) == ("16", "RECEIVED", "gw-1")
    attempts = table(folder / f"mailing-{mailing_id}-attempts.csv.gz")
    assert len(attempts) == CLIENTS // 2
    assert (attempts[0]["error_class"], attempts[0]["response_excerpt"]) == ("SERVER", 'a "quoted", text')


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, which fails as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_with_a_full_disk_nothing_goes(service: Service, pool: asyncpg.Pool, tmp_path: Path) -> None:
    mailing_id = await ended(pool, 31)
    with full_disk(100), pytest.raises(OSError, match="too large"):
        await expire(pool, "30d", tmp_path)
    assert names_in(tmp_path) == []
    assert len(await listed(service, mailing_id=mailing_id)) == CLIENTS
    assert await expire(pool, "30d", tmp_path) == [mailing_id]


async def test_two_replicas_write_whole_files_and_remove_once(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """The slower one reads when rows go already. Fails when it replaces the file with what it still found."""
    await pool.execute("SELECT add_ledger_partition_v1(1, 1)")
    mailing_id = await ended(pool, 31)
    async with holding(pool, "LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE"):
        slower = asyncio.create_task(expire(pool, "30d", tmp_path))
        await blocked(pool)
        faster = asyncio.create_task(expire(pool, "30d", tmp_path))
        await blocked(pool, 2)
    hidden = await asyncio.gather(slower, faster)
    await asyncio.gather(remove(pool), remove(pool))
    assert sorted(hidden) == [[], [mailing_id]]
    assert await rows_of(pool, mailing_id) == 0
    archive = MessageArchive(Database(pool), tmp_path)
    assert not await archive.write(mailing_id)  # one that comes late
    assert len(table(tmp_path / f"mailing-{mailing_id}-messages.csv.gz")) == CLIENTS
    assert len(table(tmp_path / f"mailing-{mailing_id}-attempts.csv.gz")) == CLIENTS // 2


async def test_a_backup_that_reads_everything_holds_up_no_removal(pool: asyncpg.Pool) -> None:
    """The partition cannot be emptied while it is read, so the messages go step by step."""
    await pool.execute("SELECT add_ledger_partition_v1(1, 1)")
    mailing_id = await ended(pool, 31)
    await expire(pool, "30d")
    async with holding(pool, "LOCK TABLE messages IN ACCESS SHARE MODE"):
        await remove(pool)
    assert await rows_of(pool, mailing_id) == 0
