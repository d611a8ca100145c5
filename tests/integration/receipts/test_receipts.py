"""Receipts on a real listener and database: in any order, more than once, before the settle, and never for others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest

from dispatcher.model.states import MailingState, Status
from mailing.v1 import mailing_service_pb2, message_service_pb2
from mailing.v1.delivery_service_pb2 import MessageChange, WatchMessagesRequest
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.message_pb2 import Message
from mailing.v1.message_service_pb2_grpc import MessageServiceStub
from server.domain.messages import message_id
from server.domain.receipts import MessageReceipt, Receipt
from server.storage.database import Database
from server.storage.receipts import ReceiptStore
from server.storage.verification import Verification
from tests.integration.receipts.conftest import Gateway
from tests.support.api import serving
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing

BOTH = [Message.RECEIPT_RECEIVED, Message.RECEIPT_UNDELIVERED]


async def messages(pool: asyncpg.Pool, count: int = 3, endpoint: str = "") -> list[int]:
    """Add clients and a mailing to them, delivered; return the ids of its messages."""
    clients = await add_clients(pool, count)
    mailing = await add_mailing(pool, state=MailingState.RUNNING, endpoint=endpoint)
    await pool.executemany(
        "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, status, settled_at, attempts)"
        " VALUES ($1, $2, $3, now(), now(), $4, now(), 1)",
        [(client % 16, mailing, client, Status.DELIVERED) for client in clients],
    )
    await pool.execute(
        "INSERT INTO mailing_counts (bucket, mailing_id, status, n) SELECT client_id % 16, mailing_id, status, count(*)"
        " FROM messages GROUP BY 1, 2, 3"
    )
    return [message_id(mailing, client) for client in clients]


async def counts(pool: asyncpg.Pool) -> dict[tuple[int, str], int]:
    rows = await pool.fetch("SELECT receipt, code, sum(n) AS n FROM receipt_counts GROUP BY 1, 2 HAVING sum(n) <> 0")
    return {(row["receipt"], row["code"]): row["n"] for row in rows}


async def test_the_greater_receipt_holds_in_any_order(
    pool: asyncpg.Pool, gateway: Gateway, store: ReceiptStore
) -> None:
    """Fails when a lesser receipt overwrites a greater one, and when a repeated one is counted again."""
    ids = await messages(pool)
    reports = [(one, status) for one in ids for status in ("sent", "read", "delivered", "failed")] * 2
    random.shuffle(reports)
    statuses = await asyncio.gather(*(gateway.report(one, code=one[1]) for one in reports))
    assert set(statuses) == {200}
    found = await store.read(ids)
    assert {(one.receipt, one.code) for one in found.values()} == {(Receipt.READ, "read")}
    assert await counts(pool) == {(Receipt.READ, "read"): 3}


async def test_a_receipt_may_come_before_the_message_is_settled(
    pool: asyncpg.Pool, gateway: Gateway, store: ReceiptStore
) -> None:
    """Fails when a receipt needs the message's row."""
    [client] = await add_clients(pool, 1)
    identity = message_id(await add_mailing(pool), client)
    assert await gateway.report((identity, "delivered")) == 200
    assert (await store.read_one(identity)).receipt is Receipt.RECEIVED


async def test_an_id_of_the_gateway_is_known_once_an_answer_named_it(
    pool: asyncpg.Pool, gateway: Gateway, store: ReceiptStore
) -> None:
    """Fails when a report about an id that is not known yet is dropped."""
    [identity, other, _] = await messages(pool)
    assert await gateway.report(("SM-1", "delivered"), code="7") == 404
    assert await gateway.report(("SM-1", "sent")) == 404
    await name(pool, identity, "SM-1")
    await eventually(lambda: store.read_one(identity), lambda found: found.receipt is Receipt.RECEIVED)
    assert (await store.read_one(identity))[2:] == ("7", "SM-1")
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM held_receipts"), lambda count: count == 0)
    await name(pool, other, "SM-2")
    assert await gateway.report(("SM-2", "failed"), code="30003") == 200
    assert await counts(pool) == {(Receipt.RECEIVED, "7"): 1, (Receipt.UNDELIVERED, "30003"): 1}


async def name(pool: asyncpg.Pool, identity: int, provider_id: str) -> None:
    """Note the gateway's id of a message, as a settlement does."""
    await pool.execute(
        "INSERT INTO receipts (bucket, mailing_id, client_id, provider_id) VALUES ($1, $2, $3, $4)",
        identity % 16,
        identity >> 32,
        identity & 0xFFFFFFFF,
        provider_id,
    )


@pytest.mark.parametrize("identity", ["5", "1" * 25, "SM-9", str(1 << 62), str(message_id(999, 16)), "-1"])
async def test_nobody_knows_an_unknown_id(identity: str, pool: asyncpg.Pool, gateway: Gateway) -> None:
    await messages(pool)
    assert await gateway.report((identity, "delivered")) == 404
    assert gateway.counted("unknown_message") == 1
    assert await counts(pool) == {}


async def test_a_gateway_reports_about_its_own_messages_only(pool: asyncpg.Pool, gateway: Gateway) -> None:
    """Fails when the endpoint of the mailing is not looked at."""
    [identity, named, _] = await messages(pool)
    await name(pool, named, "SM-1")
    assert await gateway.report((identity, "delivered"), endpoint="other") == 404
    assert await gateway.report(("SM-1", "delivered"), endpoint="other") == 404
    assert await counts(pool) == {}


async def test_some_known_reports_among_others_are_taken(pool: asyncpg.Pool, gateway: Gateway) -> None:
    [identity, *_] = await messages(pool)
    assert await gateway.report((identity, "delivered"), ("nobody", "delivered"), (identity, "odd")) == 200
    assert await counts(pool) == {(Receipt.RECEIVED, ""): 1}
    assert await gateway.report((identity, "odd")) == 200
    assert gateway.counted("ignored") == 1


async def test_what_is_not_proven_is_not_taken(pool: asyncpg.Pool, gateway: Gateway) -> None:
    """Fails when the body is recorded before it is verified."""
    [identity, *_] = await messages(pool)
    for headers in ({}, {"authorization": "Bearer T0ken"}, {"authorization": "t0ken"}):
        assert await gateway.report((identity, "delivered"), headers=headers) == 401
    assert await counts(pool) == {}
    url = f"/receipts/form/{{}}?message={identity}"
    for secret in ("", "s3cre", "s3cret/", "S3cret"):
        assert (await gateway.client.post(url.format(secret), data={"Status": "read"})).status_code == 401
    assert gateway.counted("unverified") == 7


async def test_a_form_tells_the_message_by_the_receipt_url(pool: asyncpg.Pool, gateway: Gateway) -> None:
    [identity, *_] = await messages(pool, endpoint="form")
    url = f"/receipts/form/s3cret?message={identity}"
    assert (await gateway.client.post(url, data={"Status": "delivered"})).status_code == 200
    assert await counts(pool) == {(Receipt.RECEIVED, ""): 1}


async def test_bad_requests_are_counted_and_harm_nobody(gateway: Gateway) -> None:
    """Fails for any of these that raises."""
    head = {"authorization": "Bearer t0ken"}
    post = gateway.client.post
    assert (await post("/receipts/default", content=b"x" * 65_537, headers=head)).status_code == 413
    assert (await post("/receipts/default", content=pieces(70_000), headers=head)).status_code == 413
    assert (await post("/receipts/default", content=b"{nonsense", headers=head)).status_code == 400
    assert (await post("/receipts/default", content=b"\xff\xfe", headers=head)).status_code == 400
    assert (await post("/receipts/nobody", content=b"[]", headers=head)).status_code == 404
    assert (await post("/elsewhere", content=b"[]")).status_code == 404
    assert (await gateway.client.get("/receipts/default", headers=head)).status_code == 405
    for odd in (b"5", b"null", b'["x",[1],{"id":{}},{"id":null,"status":[]}]', b"[]", b'{"id":1}'):
        assert (await post("/receipts/default", content=odd, headers=head)).status_code == 200
    assert (await post("/receipts/form/s3cret", content=b"&".join([b"a=b"] * 5000))).status_code == 400
    assert gateway.counted("failed") == 0


async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


async def test_the_api_shows_receipts(pool: asyncpg.Pool, gateway: Gateway) -> None:
    """Fails when one of the readers leaves the receipts out."""
    [first, second, third] = await messages(pool)
    mailing = first >> 32
    async with serving(pool) as (_, address), grpc.aio.insecure_channel(address) as channel:
        delivery, reader = DeliveryServiceStub(channel), MessageServiceStub(channel)
        assert await gateway.report((first, "delivered"), (second, "failed"), code="9") == 200
        await name(pool, third, "SM-1")
        changes = [change for change in await watched(delivery, mailing, True) if change.receipt]
        assert {(one.message_id, one.receipt, one.status, one.receipt_code) for one in changes} == {
            (first, Message.RECEIPT_RECEIVED, Message.STATUS_DELIVERED, "9"),
            (second, Message.RECEIPT_UNDELIVERED, Message.STATUS_DELIVERED, "9"),
        }
        assert await watched(delivery, mailing, False) == []
        shown = (await reader.GetMessage(message_service_pb2.GetMessageRequest(message_id=first))).message
        assert (shown.receipt, shown.receipt_code, shown.HasField("receipt_time")) == (2, "9", True)
        shown = (await reader.GetMessage(message_service_pb2.GetMessageRequest(message_id=third))).message
        assert (shown.receipt, shown.provider_id, shown.HasField("receipt_time")) == (0, "SM-1", False)
        asked = message_service_pb2.ListMessagesRequest(mailing_id=mailing, receipts=[Message.RECEIPT_UNDELIVERED])
        assert [one.id for one in (await reader.ListMessages(asked)).messages] == [second]
        asked = message_service_pb2.ListMessagesRequest(
            client_id=first & 0xFFFFFFFF, receipts=[Message.RECEIPT_RECEIVED]
        )
        assert [one.receipt for one in (await reader.ListMessages(asked)).messages] == [2]
        exported = reader.ExportMessages(message_service_pb2.ExportMessagesRequest(mailing_id=mailing, receipts=BOTH))
        assert [one.id for part in [p async for p in exported] for one in part.messages] == [first, second]
        request = mailing_service_pb2.GetMailingReportRequest(mailing_id=mailing)
        report = await MailingServiceStub(channel).GetMailingReport(request)
        assert [(one.receipt, one.code, one.count) for one in report.receipts] == [(2, "9", 1), (3, "9", 1)]
        totals = report.mailing.progress.receipts
        assert (totals.sent, totals.received, totals.undelivered, totals.read) == (0, 1, 1, 0)


async def watched(delivery: Any, mailing: int, include_receipts: bool) -> list[MessageChange]:
    """Return what a watcher sees of the mailing from its beginning until it sees nothing new."""
    request = WatchMessagesRequest(mailing_id=mailing, from_start=True, include_receipts=include_receipts)
    call, found = delivery.WatchMessages(request), list[MessageChange]()
    async for response in call:
        found += response.changes
        if response.checkpoint:
            call.cancel()
            break
    return found


async def test_the_records_still_agree(pool: asyncpg.Pool, gateway: Gateway) -> None:
    """Fails when an entry about receipts counts as a settlement, or leaves a gap."""
    ids = await messages(pool, 40)
    await asyncio.gather(*(gateway.report((one, "delivered"), (one, "read")) for one in ids))
    findings = await Verification(Database(pool, 2.0)).run(repair=False)
    assert [one for one in findings if "feed" in one.check and "gap" in one.found] == []
    seqs = await pool.fetch(
        "SELECT b.journal_seq, count(j.seq) AS n FROM buckets b LEFT JOIN journal j USING (bucket) GROUP BY 1, b.bucket"
    )
    assert all(row["journal_seq"] == row["n"] for row in seqs)


def test_no_receipt_is_nothing() -> None:
    assert MessageReceipt() == (Receipt.NONE, None, "", "")
