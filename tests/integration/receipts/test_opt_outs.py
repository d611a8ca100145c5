"""People opt out by themselves: by a word, by an answer, by a receipt; and running mailings know it at once."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import grpc
import pytest

from dispatcher.delivery.http1 import FastSender
from dispatcher.model.answers import AnswerRules, ErrorRule, Match
from dispatcher.model.states import ErrorClass, Status
from mailing.v1.client_pb2 import OptOut
from mailing.v1.client_service_pb2 import CreateClientRequest, GetClientRequest, UpdateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from tests.conformance.gateways import GatewayServer, Reply
from tests.integration.api.calls import client as client_of
from tests.integration.dispatcher.conftest import ENDPOINT, Start, start
from tests.integration.dispatcher.mailings import completed
from tests.integration.receipts.conftest import Gateway
from tests.support.api import serving
from tests.support.ledger import add_clients, add_mailing, audit, statuses

__all__ = ["start"]

INBOUND = "/inbound/default/s3cret"


async def write(gateway: Gateway, phone: str, text: str) -> int:
    return (await gateway.client.post(INBOUND, data={"From": phone, "Body": text})).status_code


async def person(pool: asyncpg.Pool) -> int:
    """Add a client who is found by the phone; return the id."""
    [client] = await add_clients(pool, 1)
    await pool.execute("INSERT INTO client_phones SELECT phone, bucket, id FROM clients")
    return client


async def opted(pool: asyncpg.Pool) -> dict[int, bool]:
    return {row["id"]: row["opted_out"] for row in await pool.fetch("SELECT id, opted_out FROM clients ORDER BY id")}


@pytest.mark.parametrize(
    "text", ["STOP", "stop", " Stop. ", "STOPALL", "unsubscribe", "Cancel!", "END", "quit", "停止", "«stop»"]
)
async def test_a_word_alone_opts_out(text: str, pool: asyncpg.Pool, gateway: Gateway) -> None:
    client = await person(pool)
    assert await write(gateway, f"+{79_000_000_000 + client}", text) == 200
    assert await opted(pool) == {client: True}
    assert gateway.counted("opted") == 1


@pytest.mark.parametrize("text", ["STOP it", "please stop", "", "STOPP", "1", "ST OP", "x" * 5000])
async def test_a_sentence_does_not(text: str, pool: asyncpg.Pool, gateway: Gateway) -> None:
    client = await person(pool)
    assert await write(gateway, f"+{79_000_000_000 + client}", text) == 200
    assert await opted(pool) == {client: False}
    assert gateway.counted("ignored") == 1


async def test_start_comes_back_and_the_log_has_both(pool: asyncpg.Pool, gateway: Gateway) -> None:
    """Fails when a repeated word is a second change, and when the change is not one that mailings see."""
    client = await person(pool)
    phone = str(79_000_000_000 + client)
    for text in ("STOP", "STOP", "start", "開始"):
        assert await write(gateway, phone, text) == 200
    assert await opted(pool) == {client: False}
    events = await pool.fetch("SELECT event, details::text FROM log WHERE client_id = $1 ORDER BY no", client)
    assert [row["event"] for row in events] == ["client.opted_out", "client.opted_in"]
    assert '"inbound"' in events[0]["details"]
    assert await pool.fetchval("SELECT count(*) FROM client_changes WHERE $1 = ANY (client_ids)", client) == 3


async def test_nobody_opts_others_out(pool: asyncpg.Pool, gateway: Gateway) -> None:
    client = await person(pool)
    data = {"From": str(79_000_000_000 + client), "Body": "STOP"}
    assert (await gateway.client.post("/inbound/default/wrong", data=data)).status_code == 401
    assert (await gateway.client.post("/inbound/nobody/s3cret", data=data)).status_code == 404
    assert await opted(pool) == {client: False}


async def test_the_client_shows_when_and_how(pool: asyncpg.Pool, gateway: Gateway) -> None:
    """Fails when an API write, an inbound word or a later change forgets the source."""
    async with serving(pool) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = ClientServiceStub(channel)
        made = (await stub.CreateClient(CreateClientRequest(client=client_of(79261234567)))).client
        assert not made.HasField("opt_out")
        await write(gateway, "+7 926 123-45-67", "Stop")
        shown = (await stub.GetClient(GetClientRequest(client_id=made.id))).client
        assert (shown.opted_out, shown.opt_out.source, shown.opt_out.word) == (True, OptOut.SOURCE_INBOUND, "STOP")
        assert shown.opt_out.endpoint == "default"
        changed = client_of(79261234567, id=made.id, tag="new", opted_out=True)
        shown = (await stub.UpdateClient(UpdateClientRequest(client=changed))).client
        assert shown.opt_out.source == OptOut.SOURCE_INBOUND
        changed.opted_out = False
        shown = (await stub.UpdateClient(UpdateClientRequest(client=changed))).client
        assert not shown.HasField("opt_out")
        changed.opted_out = True
        shown = (await stub.UpdateClient(UpdateClientRequest(client=changed))).client
        assert shown.opt_out.source == OptOut.SOURCE_API


async def test_a_word_from_an_unknown_phone_is_remembered(pool: asyncpg.Pool, gateway: Gateway) -> None:
    """Fails when the client who is added later gets messages."""
    assert await write(gateway, "79261234567", "STOP") == 200
    async with serving(pool) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = ClientServiceStub(channel)
        assert (await stub.CreateClient(CreateClientRequest(client=client_of(79261234567)))).client.opted_out


async def test_a_receipt_may_say_that_the_person_opted_out(pool: asyncpg.Pool, gateway: Gateway) -> None:
    first, second = await add_clients(pool, 2)
    mailing = await add_mailing(pool)
    assert await gateway.report((mailing << 32 | first, "failed"), code="21610") == 200
    assert await gateway.report((mailing << 32 | second, "failed"), code="30003") == 200
    assert await opted(pool) == {first: True, second: False}


async def test_an_answer_opts_out_of_the_next_mailing_as_well(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the answer ends the message alone."""
    rules = AnswerRules(Match(frozenset({200})), (ErrorRule(Match(frozenset({410})), ErrorClass.OPTED_OUT),))
    [client] = await add_clients(pool, 1)
    mailing = await add_mailing(pool)
    async with GatewayServer(lambda _: Reply(410)) as server:
        endpoint = replace(ENDPOINT, url=f"http://127.0.0.1:{server.port}/", answers=rules)
        start(FastSender(endpoint), endpoint=endpoint)
        await completed(pool, mailing)
        assert await opted(pool) == {client: True}
        await completed(pool, await add_mailing(pool))
    assert await statuses(pool, mailing) == {Status.SKIPPED: 1}
    assert await pool.fetchval("SELECT opt_out_source FROM clients WHERE id = $1", client) == OptOut.SOURCE_ENDPOINT
    await audit(pool)
