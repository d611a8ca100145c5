"""ExportMessages: every message of a mailing in the order of clients, resumable, in responses that fit."""

from __future__ import annotations

from typing import Any

import asyncpg

from mailing.v1 import message_pb2
from mailing.v1.client_service_pb2 import DeleteClientRequest
from mailing.v1.message_service_pb2 import ExportMessagesRequest, ExportMessagesResponse
from server.api.encoding.sizes import MAX_RESPONSE_BYTES
from server.storage.messages import EXPORT_PIECE
from tests.integration.api.calls import add_client, refused
from tests.integration.api.conftest import Service
from tests.integration.api.rows import add_batch, add_mailing

PHONE = 79260000000


async def exported(service: Service, mailing_id: int, **fields: Any) -> list[ExportMessagesResponse]:
    request = ExportMessagesRequest(mailing_id=mailing_id, **fields)
    return [response async for response in service.messages.ExportMessages(request)]


def clients_of(responses: list[ExportMessagesResponse]) -> list[int]:
    return [message.client_id for response in responses for message in response.messages]


async def add_many(pool: asyncpg.Pool, count: int, text: str = "Hello") -> int:
    """Add a mailing with pending messages to that many clients of every bucket, and their clients."""
    mailing_id = await add_mailing(pool)
    await pool.execute("UPDATE mailings SET text = $2 WHERE id = $1", mailing_id, text)
    await pool.execute(
        "INSERT INTO clients (bucket, id, phone, timezone)"
        " SELECT n % 16, n, ($2 + n)::text, 'Europe/Moscow' FROM generate_series(16::bigint, 15 + 16 * $1::bigint) n",
        count,
        PHONE,
    )
    await pool.execute(
        "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at)"
        " SELECT n % 16, $2, n, now(), now() FROM generate_series(16::bigint, 15 + 16 * $1::bigint) n",
        count,
        mailing_id,
    )
    return mailing_id


async def test_all_messages_come_once_in_the_order_of_clients(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when what a bucket has behind its piece is passed over."""
    mailing_id = await add_many(pool, EXPORT_PIECE + 20)
    await pool.execute("DELETE FROM messages WHERE bucket = 3 AND client_id > 1000")
    expected = [row["client_id"] for row in await pool.fetch("SELECT client_id FROM messages ORDER BY client_id")]
    assert clients_of(await exported(service, mailing_id)) == expected


async def test_phone_and_text_are_those_of_now_and_empty_for_a_deleted_client(
    service: Service, pool: asyncpg.Pool
) -> None:
    made = await add_client(service, PHONE, attributes={"name": "Ann"})
    mailing_id = await add_mailing(pool)
    await pool.execute("UPDATE mailings SET text = 'Dear {attributes.name}'")
    await add_batch(pool, mailing_id, [made.id])
    (before,) = (await exported(service, mailing_id))[0].messages
    assert (before.id, before.phone, before.text) == (mailing_id << 32 | made.id, str(PHONE), "Dear Ann")
    await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id))
    (after,) = (await exported(service, mailing_id))[0].messages
    assert (after.status, after.phone, after.text) == (message_pb2.Message.STATUS_CANCELLED, "", "")


async def test_an_export_goes_on_behind_its_token(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await add_many(pool, 100)
    await pool.execute("UPDATE messages SET status = 3, reason = 1, settled_at = now() WHERE client_id % 2 = 0")
    failed = {"statuses": [message_pb2.Message.STATUS_FAILED]}
    responses = await exported(service, mailing_id, **failed)
    assert len(clients_of(responses)) == 800
    first, token = responses[0], responses[0].resume_token
    rest = await exported(service, mailing_id, **failed, resume_token=token)
    assert clients_of([first, *rest]) == clients_of(responses)
    for bad in ({"resume_token": token}, {"resume_token": "x", **failed}):
        with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"):
            await exported(service, mailing_id, **bad)


async def test_no_response_is_larger_than_every_caller_takes(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when responses are cut by count alone."""
    mailing_id = await add_many(pool, 32, "x" * 4000)
    responses = await exported(service, mailing_id)
    assert len(responses) > 1
    assert max(response.ByteSize() for response in responses) <= MAX_RESPONSE_BYTES + 1024
    assert len(clients_of(responses)) == 512


async def test_a_mailing_that_is_not_there_is_named(service: Service) -> None:
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await exported(service, 77)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id"):
        await exported(service, 0)
