"""Messages that have no row of their own are read, retried and deleted as all others.

Before its first attempt a message stands in its batch alone; what ended alike and untried stands in a
block. Clients of one mailing are spread here over rows, fresh batches and blocks that lie across each other.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.outcomes import Outcome, Settlement
from dispatcher.model.states import AudienceMode, MailingState, Reason, Status
from dispatcher.retry_policy import put_off, unsent
from mailing.v1 import message_pb2
from mailing.v1.client_service_pb2 import DeleteClientRequest
from mailing.v1.mailing_service_pb2 import DeleteMailingRequest, PreviewMailingRequest, RetryMailingRequest
from mailing.v1.message_service_pb2 import GetMessageRequest, ListMessagesRequest
from server.domain.previews import FrequencyCap
from server.runtime.api_settings import ApiSettings
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.support.ledger import add_clients, add_mailing, audit, database_now, statuses

FIRST, EACH = 16, 12
"""The first client, and the number of clients of each bucket."""

DELIVERED = Outcome(Status.DELIVERED, Reason.NONE, 1, 200, None, 5, None, None)
FAILED = Outcome(Status.FAILED, Reason.REFUSED, 1, 404, None, 5, None, None)
EXPIRED = unsent(Status.EXPIRED, Reason.MAILING_ENDED)


async def spread(pool: asyncpg.Pool) -> tuple[int, dict[int, Status]]:
    """Return a running mailing and the status of each client's message.

    Batches have three clients. The first one of a bucket is delivered and failed, the second one expires as a whole,
    of the third one two are put off, and the last one waits.
    """
    clients = await add_clients(pool, EACH * 16, FIRST)
    mailing_id = await add_mailing(pool, audience=AudienceMode.OPEN)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.plan.start_due()
    (expansion,) = await storage.plan.expandable(48)
    for bucket in expansion.positions:
        await storage.plan.expand(expansion, bucket, 3, 1000)
    mailing = (await storage.queue.definitions([mailing_id]))[mailing_id]
    expected = dict.fromkeys(clients, Status.PENDING)
    later = put_off(await database_now(pool))
    for bucket in range(16):
        batches = sorted(await storage.queue.claim(mailing, bucket, 3, 60.0, None), key=lambda batch: batch.no)
        ends = [[DELIVERED, FAILED, DELIVERED], [EXPIRED] * 3, [later, later]]
        for batch, outcomes in zip(batches, ends, strict=True):
            ids = batch.recipients.client_ids
            settled = [(client, 0, outcome) for client, outcome in zip(ids, outcomes, strict=False)]
            assert await storage.queue.settle(Settlement.of(batch, "default", settled, True, ids[len(outcomes) :]))
            expected |= {client: outcome.status for client, _, outcome in settled}
    return mailing_id, expected


async def listed(service: Service, mailing_id: int, page_size: int, *chosen: Status) -> dict[int, Status]:
    """Return the status by client, read in pages, as they came."""
    found: list[tuple[int, Status]] = []
    request = ListMessagesRequest(mailing_id=mailing_id, page_size=page_size, statuses=chosen)  # type: ignore[arg-type]
    while True:
        page = await service.messages.ListMessages(request)
        found += [(one.client_id, Status(one.status)) for one in page.messages]
        if not page.next_page_token:
            assert len(dict(found)) == len(found)
            return dict(found)
        request.page_token = page.next_page_token


@pytest.mark.parametrize("page_size", [1, 7, 1000])
async def test_lists_merge_rows_batches_and_blocks(service: Service, pool: asyncpg.Pool, page_size: int) -> None:
    mailing_id, expected = await spread(pool)
    assert await pool.fetchval("SELECT count(*) FROM messages") == 3 * 16
    assert await pool.fetchval("SELECT count(*) FROM blocks") == 16
    assert list((await listed(service, mailing_id, page_size)).items()) == list(expected.items())
    for chosen in ([Status.PENDING], [Status.EXPIRED], [Status.PENDING, Status.FAILED], [Status.CANCELLED]):
        wanted = {client: status for client, status in expected.items() if status in chosen}
        assert await listed(service, mailing_id, page_size, *chosen) == wanted
    assert await audit(pool) == []


async def test_each_is_found_by_its_id_and_by_its_client(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id, expected = await spread(pool)
    for client_id in range(FIRST, FIRST + EACH * 16, 16):
        message = (
            await service.messages.GetMessage(GetMessageRequest(message_id=mailing_id << 32 | client_id))
        ).message
        status = Status(message.status)
        assert (message.client_id, status, message.mailing_id) == (client_id, expected[client_id], mailing_id)
        assert message.HasField("create_time")
        assert message.HasField("due_time")
        assert message.HasField("settle_time") == (status is not Status.PENDING)
        assert (message.reason == message_pb2.Message.REASON_MAILING_ENDED) == (status is Status.EXPIRED)
        (of_client,) = (await service.messages.ListMessages(ListMessagesRequest(client_id=client_id))).messages
        of_client.ClearField("phone")
        assert of_client == message
    with refused("NOT_FOUND", "MESSAGE_NOT_FOUND"):
        await service.messages.GetMessage(GetMessageRequest(message_id=mailing_id << 32 | (FIRST + EACH * 16)))


async def test_expired_blocks_are_sent_again_after_a_retry(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id, expected = await spread(pool)
    request = RetryMailingRequest(mailing_id=mailing_id, statuses=[Status.EXPIRED, Status.FAILED])  # type: ignore[list-item]
    assert (await service.mailings.RetryMailing(request)).requeued == 4 * 16
    assert await pool.fetchval("SELECT count(*) FROM blocks") == 0
    assert await audit(pool) == []
    again = {client: Status.PENDING if status > 2 else status for client, status in expected.items()}
    assert await listed(service, mailing_id, 100) == again
    assert (await service.mailings.RetryMailing(request)).requeued == 0


async def test_a_deleted_client_leaves_a_row_that_is_cancelled(service: Service, pool: asyncpg.Pool) -> None:
    """Of a fresh batch only; who ended in a block stays there. The others go on."""
    mailing_id, expected = await spread(pool)
    waiting = [client for client, status in expected.items() if status is Status.PENDING]
    ended = [client for client, status in expected.items() if status is Status.EXPIRED]
    for client in (waiting[0], waiting[-1], ended[0]):
        cancelled = (await service.clients.DeleteClient(DeleteClientRequest(client_id=client))).cancelled_messages
        assert cancelled == (client != ended[0])
    assert await audit(pool) == []
    expected |= {waiting[0]: Status.CANCELLED, waiting[-1]: Status.CANCELLED}
    assert await listed(service, mailing_id, 100) == expected
    assert await pool.fetchval("SELECT reason FROM messages WHERE client_id = $1", waiting[0]) == Reason.CLIENT_DELETED


async def test_deleting_the_mailing_counts_and_removes_all(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id, expected = await spread(pool)
    await pool.execute("UPDATE mailings SET state = $1", MailingState.CANCELLED)
    deleted = await service.mailings.DeleteMailing(DeleteMailingRequest(mailing_id=mailing_id))
    assert deleted.deleted_messages == len(expected)
    for table in ("messages", "batches", "blocks", "mailing_counts"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_a_preview_counts_who_is_still_to_get_it(service: Service, pool: asyncpg.Pool) -> None:
    """Those who wait, and nobody whose message has ended, be it in a block."""
    mailing_id, expected = await spread(pool)
    await add_clients(pool, 1, 1000)
    answer = await service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=mailing_id, samples=50))
    waiting = [client for client, status in expected.items() if status is Status.PENDING]
    assert answer.audience_size == len(waiting) + 1
    assert [sample.client_id for sample in answer.samples] == waiting[:50]


class TestFrequencyCap:
    @pytest.fixture
    def api_settings(self) -> ApiSettings:
        return ApiSettings(frequency_cap=FrequencyCap(1, timedelta(hours=1)))

    async def test_what_ended_untried_does_not_count(self, service: Service, pool: asyncpg.Pool) -> None:
        mailing_id, expected = await spread(pool)
        await pool.execute(
            "INSERT INTO client_sends (bucket, client_id, mailing_ids, sent_at)"
            " SELECT bucket, client_id, ARRAY[mailing_id], ARRAY[now()] FROM ledger"
        )
        other = await add_mailing(pool)
        answer = await service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=other))
        assert answer.audience_size == sum(status in (Status.EXPIRED, Status.FAILED) for status in expected.values())
        assert mailing_id != other


async def test_a_mailing_cancelled_before_it_is_sent_has_blocks_alone(service: Service, pool: asyncpg.Pool) -> None:
    mailing_id, _ = await spread(pool)
    rows = await pool.fetchval("SELECT count(*) FROM messages")
    await pool.execute("UPDATE mailings SET state = $1, version = version + 1", MailingState.CANCELLED)
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    mailing = (await storage.queue.definitions([mailing_id]))[mailing_id]
    cancelled = unsent(Status.CANCELLED, Reason.MAILING_CANCELLED)
    for bucket in range(16):
        for batch in await storage.queue.claim(mailing, bucket, 9, 60.0, None):
            settled = [(client, 0, cancelled) for client in batch.recipients.client_ids]
            assert await storage.queue.settle(Settlement.of(batch, "default", settled, True))
    assert (await statuses(pool, mailing_id))[Status.CANCELLED] == 6 * 16
    assert await pool.fetchval("SELECT count(*) FROM messages") - rows == 16, "those that were alone in their batch"
    assert await audit(pool) == []
