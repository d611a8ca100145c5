"""There are 2^28 client numbers in 16 buckets: they are used for clients who are really added; ids never collide."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import asyncpg
import pytest

from mailing.v1 import client_pb2
from mailing.v1.client_service_pb2 import CreateClientRequest
from server.config import Settings
from server.domain.errors import ClientNumbersExhausted
from server.runtime.deletion_sweeper import warn_of_few_numbers
from server.storage.client_numbers import ClientNumbers, share_used
from server.storage.database import Database
from server.storage.migrate import migrate
from server.storage.pool import open_pool
from tests.integration.api.calls import add_client, client, imported, refused
from tests.integration.api.conftest import Service
from tests.support.locks import blocked, holding

PHONE = 79260000000
CLIENT_NUMBERS = 2**28 - 1
"""In 16 buckets, with ids of 32 bits."""


async def leave(pool: asyncpg.Pool, count: int) -> None:
    """Leave so many numbers."""
    await pool.execute("SELECT setval('client_no', $1)", CLIENT_NUMBERS - count)


async def given(pool: asyncpg.Pool) -> int:
    last: int = await pool.fetchval("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM client_no")
    return last


def rows(count: int, first: int = PHONE) -> list[client_pb2.Client]:
    return [client(first + n) for n in range(count)]


async def test_the_last_number_still_fits_into_the_id_of_a_message(service: Service, pool: asyncpg.Pool) -> None:
    await leave(pool, 1)
    assert await imported(service, rows(1)) == (1, 0, 0)
    made = await pool.fetchval("SELECT id FROM clients")
    assert (made >> 4, made < 1 << 32) == (CLIENT_NUMBERS, True)
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("UPDATE clients SET id = id + (1::bigint << 28)")


async def test_an_import_that_does_not_fit_uses_no_number(service: Service, pool: asyncpg.Pool) -> None:
    await leave(pool, 8)
    with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED"):
        await imported(service, rows(9))
    assert await imported(service, rows(8)) == (8, 0, 0)
    with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED"):
        await add_client(service, PHONE + 99)
    assert await imported(service, [client(PHONE, tag="known"), client(PHONE + 1)]) == (0, 1, 1)


async def test_known_phones_and_repeated_calls_use_no_number(service: Service, pool: asyncpg.Pool) -> None:
    call = CreateClientRequest(client=client(PHONE), request_id=str(uuid4()))
    await service.clients.CreateClient(call)
    await service.clients.CreateClient(call)
    with refused("ALREADY_EXISTS", "PHONE_TAKEN"):
        await add_client(service, PHONE)
    await imported(service, [client(PHONE, tag="new")])
    assert await given(pool) == 1


async def test_the_numbers_of_a_failed_import_go_to_the_next_one(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when numbers are taken in vain: five imports that fail in the middle of their merge."""
    await leave(pool, 10)
    for _ in range(5):
        async with holding(pool, "LOCK clients IN SHARE MODE"):
            merging = asyncio.create_task(imported(service, rows(10)))
            await blocked(pool)
            await pool.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
                await merging
    assert await imported(service, rows(4)) == (4, 0, 0)
    assert await imported(service, rows(6, PHONE + 100)) == (6, 0, 0)
    assert await pool.fetchval("SELECT count(DISTINCT id >> 4) FROM clients") == 10
    assert await pool.fetchval("SELECT max(id) < 1::bigint << 32 FROM clients")


async def test_numbers_in_several_ranges_make_an_id_each(service: Service, pool: asyncpg.Pool) -> None:
    """What failed imports gave back is in pieces, and an import takes all of them."""
    for first in (PHONE, PHONE + 100):
        async with holding(pool, "LOCK clients IN SHARE MODE"):
            merging = asyncio.create_task(imported(service, rows(3, first)))
            await blocked(pool)
            merging.cancel()
        await add_client(service, first + 50)
    assert (await imported(service, rows(20, PHONE + 200)))[0] == 20
    strays = "SELECT count(*) FROM client_phones p LEFT JOIN clients c ON c.id = p.client_id AND c.phone = p.phone"
    assert await pool.fetchval(f"{strays} WHERE c.id IS NULL OR c.bucket <> c.id % 16") == 0
    changed = await pool.fetch("SELECT unnest(client_ids) AS id FROM client_changes")
    assert {row["id"] for row in changed} == {row["id"] for row in await pool.fetch("SELECT id FROM clients")}


async def test_a_warning_says_when_most_numbers_are_given(pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture) -> None:
    await pool.execute("SELECT setval('client_no', $1)", int(CLIENT_NUMBERS * 0.79))
    await warn_of_few_numbers(Database(pool))
    assert caplog.records == []
    await pool.execute("SELECT setval('client_no', $1)", int(CLIENT_NUMBERS * 0.81))
    with caplog.at_level(logging.WARNING):
        await warn_of_few_numbers(Database(pool))
    assert "81.0% of all client numbers" in caplog.text
    async with pool.acquire() as connection:
        assert await share_used(connection) == pytest.approx(0.81)


async def test_more_buckets_leave_fewer_numbers(empty_dsn: str) -> None:
    """An id has 32 bits in any case."""
    await migrate(empty_dsn, buckets=64)
    async with open_pool(empty_dsn, Settings()) as pool:
        most = 2**26 - 1
        await pool.execute("SELECT setval('client_no', $1)", most)
        async with pool.acquire() as connection:
            assert await share_used(connection) == 1.0
            with pytest.raises(ClientNumbersExhausted):
                await ClientNumbers().take(connection, 1)
            with pytest.raises(asyncpg.SequenceGeneratorLimitExceededError):
                await connection.fetchval("SELECT nextval('client_no')")
