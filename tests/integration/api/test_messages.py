"""MessageService: the ledger, read by message, by mailing and by client."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from dispatcher.model.states import MailingState
from mailing.v1 import message_pb2
from mailing.v1.message_service_pb2 import GetMessageRequest, ListAttemptsRequest, ListMessagesRequest
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.integration.api.rows import add_batch, add_mailing

Status = message_pb2.Message.Status


async def listed(service: Service, **fields: Any) -> list[tuple[int, int]]:
    """Return mailing and client of every message, read in small pages."""
    found: list[tuple[int, int]] = []
    request = ListMessagesRequest(page_size=3, **fields)
    while True:
        page = await service.messages.ListMessages(request)
        found += [(one.mailing_id, one.client_id) for one in page.messages]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def add_messages(pool: asyncpg.Pool, *client_ids: int) -> int:
    mailing_id = await add_mailing(pool, MailingState.RUNNING)
    for client_id in client_ids:
        await add_batch(pool, mailing_id, [client_id])
    return mailing_id


async def test_a_message_tells_what_became_of_it(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await add_messages(pool, 17, 33)
    identity = mailing_id << 32 | 17
    pending = (await service.messages.GetMessage(GetMessageRequest(message_id=identity))).message
    assert (pending.id, pending.mailing_id, pending.client_id) == (identity, mailing_id, 17)
    assert (pending.status, pending.attempts) == (Status.STATUS_PENDING, 0)
    for absent in ("settle_time", "endpoint_code", "duration"):
        assert not pending.HasField(absent)
    await pool.execute(
        "UPDATE messages SET status = 2, settled_at = now(), attempts = 1, endpoint_status = 200, duration_ms = 1500"
        " WHERE client_id = 17"
    )
    delivered = (await service.messages.GetMessage(GetMessageRequest(message_id=identity))).message
    assert delivered.status == Status.STATUS_DELIVERED
    assert (delivered.HasField("endpoint_code"), delivered.endpoint_code) == (True, 0)
    assert (delivered.endpoint_status, delivered.duration.ToMilliseconds()) == (200, 1500)
    assert delivered.HasField("settle_time")
    await pool.execute(
        "UPDATE messages SET status = 3, reason = 1, settled_at = now(), endpoint_status = 400 WHERE client_id = 33"
    )
    failed = (await service.messages.GetMessage(GetMessageRequest(message_id=mailing_id << 32 | 33))).message
    assert failed.reason == message_pb2.Message.REASON_REFUSED
    assert not failed.HasField("endpoint_code")


async def test_lists_go_by_mailing_and_within_it_by_client(service: Service, pool: asyncpg.Pool) -> None:
    clients = [16, 17, 18, 33, 34, 64, 66]
    first, second = await add_messages(pool, *clients), await add_messages(pool, 17, 33)
    assert await listed(service, mailing_id=first) == [(first, client_id) for client_id in clients]
    assert await listed(service, client_id=17) == [(first, 17), (second, 17)]
    assert await listed(service, mailing_id=second, client_id=33) == [(second, 33)]
    assert await listed(service, mailing_id=second, client_id=34) == []
    assert await listed(service, client_id=999) == []
    await pool.execute("UPDATE messages SET status = 2, settled_at = now() WHERE client_id IN (17, 64)")
    delivered = [Status.STATUS_DELIVERED]
    assert await listed(service, mailing_id=first, statuses=delivered) == [(first, 17), (first, 64)]
    assert await listed(service, client_id=33, statuses=delivered) == []
    both = [Status.STATUS_PENDING, Status.STATUS_DELIVERED]
    assert await listed(service, client_id=17, statuses=both) == [(first, 17), (second, 17)]


async def test_a_client_in_many_mailings_is_listed_page_by_page(service: Service, pool: asyncpg.Pool) -> None:
    mailings = [await add_messages(pool, 17) for _ in range(7)]
    assert await listed(service, client_id=17) == [(mailing_id, 17) for mailing_id in mailings]


async def test_unknown_messages_and_mailings_are_not_found(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await add_messages(pool, 17)
    for identity in (mailing_id << 32 | 18, 5, 2**63 - 1):
        with refused("NOT_FOUND", "MESSAGE_NOT_FOUND"):
            await service.messages.GetMessage(GetMessageRequest(message_id=identity))
        with refused("NOT_FOUND", "MESSAGE_NOT_FOUND"):
            await service.messages.ListAttempts(ListAttemptsRequest(message_id=identity))
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await service.messages.ListMessages(ListMessagesRequest(mailing_id=99))


async def test_bad_questions_are_refused_by_field(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id = await add_messages(pool, 17, 18)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id"):
        await service.messages.ListMessages(ListMessagesRequest())
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "message_id"):
        await service.messages.GetMessage(GetMessageRequest())
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "message_id"):
        await service.messages.ListAttempts(ListAttemptsRequest(message_id=-1))
    unknown: Any = [0, 8]
    paths = ("page_size", "statuses[0]", "statuses[1]", "client_id")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths):
        await service.messages.ListMessages(
            ListMessagesRequest(mailing_id=1, client_id=-1, page_size=-5, statuses=unknown)
        )
    page = await service.messages.ListMessages(ListMessagesRequest(mailing_id=mailing_id, page_size=1))
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"):
        await service.messages.ListMessages(ListMessagesRequest(client_id=17, page_token=page.next_page_token))


@pytest.mark.parametrize("code", [None, 7])
async def test_failed_attempts_are_listed_in_their_order(
    service: Service, pool: asyncpg.Pool, code: int | None
) -> None:
    mailing_id = await add_messages(pool, 17)
    identity = mailing_id << 32 | 17
    request = ListAttemptsRequest(message_id=identity)
    assert not (await service.messages.ListAttempts(request)).attempts
    for number in (2, 1):
        await pool.execute(
            "INSERT INTO attempts VALUES (1, $1, 17, $2, now(), 'default', 9, 503, $3, 250, 'busy')",
            mailing_id,
            number,
            code,
        )
    attempts = (await service.messages.ListAttempts(request)).attempts
    assert [attempt.number for attempt in attempts] == [1, 2]
    first = attempts[0]
    assert (first.endpoint, first.endpoint_status, first.response_excerpt) == ("default", 503, "busy")
    assert first.error_class == message_pb2.Attempt.ERROR_CLASS_SERVER
    assert first.duration.ToMilliseconds() == 250
    assert first.HasField("endpoint_code") == (code is not None)
