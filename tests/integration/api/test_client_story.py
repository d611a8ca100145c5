"""GetClientStory: everything about one client in one call, read by keys alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import (
    DeleteClientRequest,
    GetClientStoryRequest,
    GetClientStoryResponse,
    UpdateClientRequest,
)
from mailing.v1.message_pb2 import Attempt, Message
from server.storage.queries import load_queries
from tests.conftest import PostgresServer
from tests.integration.api.calls import add_client, refused
from tests.integration.api.conftest import Service
from tests.integration.api.rows import add_batch, add_mailing
from tests.support.plans import PLAN_MODES, nodes, plan_of, planning, populated

PHONE, OTHER = "79261234567", "79261234568"


async def story(service: Service, **fields: Any) -> GetClientStoryResponse:
    return await service.clients.GetClientStory(GetClientStoryRequest(**fields))


async def add_failed(pool: asyncpg.Pool, client_id: int) -> int:
    """Add a mailing whose message to the client failed at its second attempt; return its id."""
    mailing_id = await add_mailing(pool)
    await add_batch(pool, mailing_id, [client_id])
    await pool.execute("UPDATE mailings SET title = 'Sale', endpoint = '' WHERE id = $1", mailing_id)
    await pool.execute(
        "UPDATE messages SET status = 3, reason = 1, attempts = 2, settled_at = now() WHERE mailing_id = $1", mailing_id
    )
    for number, status in ((1, 503), (2, 400)):
        await pool.execute(
            "INSERT INTO attempts VALUES ($1, $2, $3, $4, now(), 'default', 11, $5, 7, 250, 'no such number')",
            client_id % 16,
            mailing_id,
            client_id,
            number,
            status,
        )
    return mailing_id


async def test_a_story_has_messages_attempts_and_consent(service: Service, pool: asyncpg.Pool) -> None:
    made, other = await add_client(service, PHONE), await add_client(service, OTHER)
    failed = await add_failed(pool, made.id)
    await add_failed(pool, other.id)
    waiting = await add_mailing(pool)
    await add_batch(pool, waiting, [made.id])
    for opted_out in (True, False):
        await service.clients.UpdateClient(UpdateClientRequest(client=Client(id=made.id, opted_out=opted_out)))
    found = await story(service, phone=PHONE)
    assert (found.client.id, found.client.phone) == (made.id, PHONE)
    assert [(one.message.mailing_id, one.message.status) for one in found.parts] == [
        (failed, Message.STATUS_FAILED),
        (waiting, Message.STATUS_PENDING),
    ]
    first, second = found.parts
    assert (first.mailing_title, first.endpoint, len(second.attempts)) == ("Sale", "default", 0)
    assert [(one.number, one.endpoint_status) for one in first.attempts] == [(1, 503), (2, 400)]
    assert first.attempts[1].error_class == Attempt.ERROR_CLASS_REFUSED
    assert first.attempts[1].response_excerpt == "no such number"
    assert [(one.event, one.principal, one.details["source"]) for one in found.events] == [
        ("client.opted_out", "anonymous", "api"),
        ("client.opted_in", "anonymous", "api"),
    ]
    assert await story(service, client_id=made.id) == found


async def test_pages_follow_one_another_and_events_come_once(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service, PHONE, opted_out=True)
    mailings = [await add_failed(pool, made.id) for _ in range(5)]
    first = await story(service, phone=PHONE, page_size=3)
    second = await story(service, phone=PHONE, page_size=3, page_token=first.next_page_token)
    assert [one.message.mailing_id for page in (first, second) for one in page.parts] == mailings
    assert (len(first.events), len(second.events), second.next_page_token) == (1, 0, "")
    assert [len(one.attempts) for one in second.parts] == [2, 2]
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"):
        await story(service, client_id=made.id + 16, page_token=first.next_page_token)


async def test_a_deleted_client_is_found_by_id(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service, PHONE)
    mailing_id = await add_failed(pool, made.id)
    await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id))
    found = await story(service, client_id=made.id)
    assert not found.HasField("client")
    assert [one.message.mailing_id for one in found.parts] == [mailing_id]
    assert [one.event for one in found.events] == ["client.deleted"]
    for nobody in ({"phone": PHONE}, {"client_id": made.id + 16}):
        with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
            await story(service, **nobody)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client_id", "page_size"):
        await story(service, page_size=-1)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> str:
    """Return a database with attempts and events of 300 mailings to 640 clients each."""
    rows = """
    INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts,
                          initial_backoff, max_backoff)
    SELECT n, 'x', now(), 4, 2, 1, 5, '1 s', '1 min' FROM generate_series(1, 300) n;
    INSERT INTO attempts (bucket, mailing_id, client_id, number, at, endpoint, error_class, duration_ms)
    SELECT c % 16, n, c, 1, now(), 'default', 9, 10 FROM generate_series(1, 300) n, generate_series(1, 640) c;
    INSERT INTO log (bucket, no, level, event, text, mailing_id, client_id)
    SELECT c % 16, row_number() OVER (), 2, 'attempt.failed', 'x', n, c
    FROM generate_series(0, 300) n, generate_series(1, 640) c;
    """
    return populated(postgres_server, rows)


@pytest.fixture(params=PLAN_MODES)
async def connection(
    postgres_server: PostgresServer, database: str, request: pytest.FixtureRequest
) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a copy of it."""
    async with planning(postgres_server, database, request.param) as connection:
        yield connection


async def test_a_story_touches_nobody_elses_rows(connection: asyncpg.Connection) -> None:
    """Fails without the index of the log, and when attempts are read by mailing."""
    queries = load_queries("stories.sql")
    for name, table, arguments in (
        ("list_client_events", "log", {"most": 1000}),
        ("list_attempts_of_client", "attempts", {"ids": list(range(1, 301))}),
    ):
        plan = await plan_of(connection, *queries[name].bind(bucket=5, client_id=21, **arguments))
        scans = [node for node in nodes(plan) if node.get("Relation Name") == table]
        touched = sum((n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) * n["Actual Loops"] for n in scans)
        assert 0 < touched <= 301, plan
