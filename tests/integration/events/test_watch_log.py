"""WatchLog: what is kept, then what comes, chosen and resumed, and nothing missed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from dispatcher.outcome_events import Event, Level
from mailing.v1.log_pb2 import LogEntry
from server.storage.database import Database
from server.storage.events import EventStore, record
from server.watch.retention import Retention
from tests.integration.api.calls import refused
from tests.integration.events.conftest import Replica, Start, Watch
from tests.support.ledger import BUCKETS
from tests.support.locks import blocked


async def write_event(
    pool: asyncpg.Pool, text: str, level: Level = Level.INFO, mailing: int = 0, client: int = 0
) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await record(connection, Event(level, "tried", text, mailing, client), bucket=client % BUCKETS)


def texts(entries: list[LogEntry]) -> list[str]:
    return [entry.text for entry in entries]


async def test_what_is_kept_comes_first_and_then_what_is_written(pool: asyncpg.Pool, replica: Replica) -> None:
    for n in range(40):
        await write_event(pool, str(n), client=n)
    watch = Watch(replica)
    assert texts(await watch.past()) == [str(n) for n in range(40)]
    await write_event(pool, "more")
    assert texts(await watch.next(1)) == ["more"]


async def test_an_entry_has_all_that_was_recorded(pool: asyncpg.Pool, replica: Replica) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await record(connection, Event(Level.ERROR, "a.b", "Fünf\0.", 3, 21, {"x": "y"}), bucket=5)
    (entry,) = await Watch(replica).past()
    assert (entry.level, entry.event, entry.text) == (LogEntry.LEVEL_ERROR, "a.b", "Fünf.")
    assert (entry.mailing_id, entry.client_id, entry.message_id) == (3, 21, 3 << 32 | 21)
    assert (dict(entry.details), entry.principal) == ({"x": "y"}, "")
    assert entry.time.seconds > 0


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"mailing_id": 1}, ["m1", "m1 c5"]),
        ({"client_id": 5}, ["m1 c5", "m2 c5"]),
        ({"message_id": 2 << 32 | 5}, ["m2 c5"]),
        ({"level": LogEntry.LEVEL_WARNING}, ["m2 c5", "bad"]),
        ({"level": LogEntry.LEVEL_ERROR, "mailing_id": 1}, []),
        ({"level": LogEntry.LEVEL_DEBUG}, ["m1", "m1 c5", "m2 c5", "bad"]),
    ],
)
async def test_a_reader_gets_what_it_asked_for(
    pool: asyncpg.Pool, replica: Replica, request_fields: dict[str, Any], expected: list[str]
) -> None:
    watch = Watch(replica, **request_fields)
    assert await watch.past() == []
    await write_event(pool, "m1", mailing=1)
    await write_event(pool, "m1 c5", mailing=1, client=5)
    await write_event(pool, "m2 c5", Level.WARNING, mailing=2, client=5)
    await write_event(pool, "bad", Level.ERROR)
    if expected:
        assert texts(await watch.next(len(expected))) == expected
    assert texts(await Watch(replica, **request_fields).past()) == expected


async def test_a_stream_resumes_on_another_replica(pool: asyncpg.Pool, start: Start) -> None:
    first, second = await start(), await start()
    await write_event(pool, "before")
    watch = Watch(first, mailing_id=0)
    await watch.past()
    await write_event(pool, "one", client=3)
    await watch.next(1)
    token = watch.token
    watch.cancel()
    await write_event(pool, "two", client=4)
    assert texts(await Watch(second, resume_token=token).past()) == ["two"]


async def test_tokens_of_other_queries_are_rejected(pool: asyncpg.Pool, replica: Replica) -> None:
    watch = Watch(replica, mailing_id=1)
    await watch.past()
    for wrong in ({"resume_token": watch.token}, {"resume_token": "garbage"}, {"resume_token": "é"}):
        with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"):
            await Watch(replica, **wrong).response()


async def test_a_token_of_another_database_is_expired(pool: asyncpg.Pool, start: Start) -> None:
    watch = Watch(await start())
    await watch.past()
    await pool.execute("UPDATE journal_epochs SET epoch = gen_random_uuid()")
    with refused("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"):
        await Watch(await start(), resume_token=watch.token).response()


async def test_a_token_ahead_of_the_database_is_expired(pool: asyncpg.Pool, replica: Replica) -> None:
    await write_event(pool, "lost")
    watch = Watch(replica)
    await watch.past()
    await pool.execute("DELETE FROM log")
    await pool.execute("UPDATE log_seqs SET seq = 0")
    with refused("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"):
        await Watch(replica, resume_token=watch.token).response()


@pytest.mark.parametrize("bad", [{"mailing_id": -1}, {"message_id": -1}, {"client_id": -1}, {"level": 9}])
async def test_bad_requests_name_the_field(replica: Replica, bad: dict[str, Any]) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *bad):
        await Watch(replica, **bad).response()


async def test_old_entries_are_removed_and_their_tokens_expire(pool: asyncpg.Pool, replica: Replica) -> None:
    await write_event(pool, "old")
    watch = Watch(replica)
    await watch.past()
    early = watch.token
    for n in range(250):
        await write_event(pool, str(n))
    await pool.execute("UPDATE log SET at = now() - interval '2 h' WHERE no <= 120")
    await Retention(
        EventStore(Database(pool), BUCKETS), timedelta(hours=1).total_seconds(), "event log"
    ).remove_expired()
    assert await pool.fetchval("SELECT count(*) FROM log") == 131
    with refused("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"):
        await Watch(replica, resume_token=early).response()
    assert len(await Watch(replica).past()) == 131


async def test_the_end_of_a_replica_ends_streams_with_a_token(pool: asyncpg.Pool, start: Start) -> None:
    first, second = await start(), await start()
    watch = Watch(first)
    await watch.past()
    stopping = asyncio.create_task(first.server.stop(1.0))
    with refused("UNAVAILABLE", "SHUTTING_DOWN") as info:
        await watch.response()
    await stopping
    assert info.metadata["resume_token"] == watch.token
    await write_event(pool, "later")
    assert texts(await Watch(second, resume_token=info.metadata["resume_token"]).past()) == ["later"]


async def test_a_stream_that_nobody_reads_ends_with_a_token(pool: asyncpg.Pool, start: Start) -> None:
    await pool.execute(
        "INSERT INTO log (bucket, no, level, event, text) SELECT 0, n, 2, n::text, repeat('x', 1000)"
        " FROM generate_series(1, 20000) n"
    )
    await pool.execute("UPDATE log_seqs SET seq = 20000 WHERE bucket = 0")
    # A window that does not grow: what is not read is not taken from the server either.
    replica = await start(patience=0.3, options=[("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)])
    watch = Watch(replica)
    found: list[str] = []
    await asyncio.sleep(1.0)  # nobody reads
    with refused("RESOURCE_EXHAUSTED", "READER_TOO_SLOW") as info:
        while True:
            found += [entry.event for entry in (await watch.response()).entries]
    assert 0 < len(found) < 20_000
    rest = [entry.event for entry in await Watch(replica, resume_token=watch.token).past()]
    assert found + rest == [str(n) for n in range(1, 20_001)]
    # The response that found no room for so long may have arrived after all: then it comes again.
    again = await Watch(replica, resume_token=info.metadata["resume_token"]).next(1)
    assert int(again[0].event) <= len(found) + 1


async def test_an_entry_that_commits_late_is_not_missed(pool: asyncpg.Pool, replica: Replica) -> None:
    """Fails when numbers are taken from a sequence: the second entry would be read, and the first one passed over."""
    watch = Watch(replica)
    await watch.past()
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await record(connection, Event(Level.INFO, "tried", "first"))
        other = asyncio.create_task(write_event(pool, "second"))
        await blocked(pool)
        await transaction.commit()
    await other
    assert texts(await watch.next(2)) == ["first", "second"]


async def test_many_writers_and_readers_lose_nothing(pool: asyncpg.Pool, start: Start) -> None:
    """Eight writers, transactions of any length, readers that come and go between replicas."""
    replicas = [await start(), await start()]
    count = 400

    async def write(writer: int) -> None:
        for n in range(writer, count, 8):
            await write_event(pool, str(n), client=n)

    async def read(number: int) -> list[str]:
        token, turn = "", number
        found: list[str] = []
        while len(found) < count:
            watch = Watch(replicas[turn % 2], resume_token=token)
            found += texts(await watch.next(1))
            token, turn = watch.token, turn + 1
            watch.cancel()
        return found

    *readers, _ = await asyncio.gather(read(0), read(1), asyncio.gather(*(write(n) for n in range(8))))
    for found in readers:
        assert sorted(found, key=int) == [str(n) for n in range(count)]


async def test_a_long_log_is_read_in_pages_and_in_order(pool: asyncpg.Pool, replica: Replica) -> None:
    """Also for a reader whose choice is rare among what is looked through."""
    await pool.execute(
        "INSERT INTO log (bucket, no, at, level, event, text, mailing_id, client_id)"
        " SELECT n % 16, n / 16 + 1, now() - interval '1 h' + n * interval '1 ms',"
        " CASE n % 5000 WHEN 0 THEN 4 ELSE 2 END, 'tried', n::text, 1, n FROM generate_series(0, 199999) n"
    )
    await pool.execute("UPDATE log_seqs SET seq = 12500")
    rare = [int(text) for text in texts(await Watch(replica, level=LogEntry.LEVEL_ERROR).past())]
    assert rare == list(range(0, 200_000, 5000))
    (own,) = await Watch(replica, client_id=77_777).past()
    assert own.text == "77777"
    watch = Watch(replica)
    found: list[str] = []
    for _ in range(20):
        response = await watch.response()
        assert 0 < len(response.entries) <= 500
        found += texts(list(response.entries))
    assert found == [str(n) for n in range(len(found))]
