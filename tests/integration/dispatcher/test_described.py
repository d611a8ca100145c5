"""Mailings through an endpoint by description: values, addresses, and answers that speak of the person."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from dispatcher.delivery.batching import BatchingSender
from dispatcher.delivery.http1 import FastSender
from dispatcher.model.answers import AnswerRules, ErrorRule, Match, Pointer, Source, typed
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.request_batches import BatchText
from dispatcher.model.requests import RequestText, compile_request
from dispatcher.model.states import ErrorClass, Reason, Status
from tests.conformance.gateways import GatewayServer, Reply
from tests.conformance.scripted_endpoint import Request
from tests.integration.dispatcher.conftest import ENDPOINT, Start
from tests.integration.dispatcher.mailings import completed
from tests.support.ledger import add_clients, add_mailing, audit

RULES = AnswerRules(
    Match(frozenset({200})),
    (
        ErrorRule(Match(frozenset({410})), ErrorClass.OPTED_OUT),
        ErrorRule(Match(None, Pointer.parse("/later")), ErrorClass.TRANSIENT),
    ),
)


async def outcomes(pool: asyncpg.Pool, mailing: int) -> dict[int, tuple[Status, Reason, int]]:
    rows = await pool.fetch("SELECT client_id, status, reason, attempts FROM messages WHERE mailing_id = $1", mailing)
    return {row["client_id"]: (Status(row["status"]), Reason(row["reason"]), row["attempts"]) for row in rows}


def described(port: int) -> Endpoint:
    form = compile_request(
        RequestText(
            url="http://host/send",
            json={"to": "{attributes.email}", "title": "{title}", "text": "{text}", "id": "{id}"},
            requires=["email"],
        )
    )
    return replace(ENDPOINT, url=f"http://127.0.0.1:{port}/send", request=form, answers=RULES)


async def test_who_has_no_address_is_skipped_and_the_others_are_sent(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the text of all is taken without the values of each, and when `requires` is left out."""
    bodies: list[Any] = []

    def gateway(request: Request) -> Reply:
        bodies.append(json.loads(request.body))
        return Reply(200)

    with_address = await add_clients(pool, 3, attributes='{"email": "a@b"}')
    without = await add_clients(pool, 2, first=100, attributes='{"email": ""}')
    mailing = await add_mailing(pool)
    await pool.execute("UPDATE mailings SET title = 'News'")
    async with GatewayServer(gateway) as server:
        endpoint = described(server.port)
        start(FastSender(endpoint), endpoint=endpoint)
        await completed(pool, mailing)
    found = await outcomes(pool, mailing)
    assert [found[id_] for id_ in with_address] == [(Status.DELIVERED, Reason.NONE, 1)] * 3
    assert [found[id_] for id_ in without] == [(Status.SKIPPED, Reason.NO_ADDRESS, 0)] * 2
    assert sorted(bodies, key=lambda body: int(body["id"])) == [
        {"to": "a@b", "title": "News", "text": "Hello", "id": str(mailing << 32 | id_)} for id_ in with_address
    ]
    await audit(pool)


async def test_an_answer_may_say_that_the_person_opted_out(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the class is taken for a refusal, and when a transient one is final or costs nothing."""
    seen: list[str] = []

    def gateway(request: Request) -> Reply:
        name = json.loads(request.body)["to"]
        seen.append(name)
        if name == "gone":
            return Reply(410)
        return Reply(200, {"later": True}) if seen.count(name) < 3 else Reply(200)

    [gone] = await add_clients(pool, 1, attributes='{"email": "gone"}')
    [later] = await add_clients(pool, 1, first=50, attributes='{"email": "later"}')
    mailing = await add_mailing(pool)
    async with GatewayServer(gateway) as server:
        endpoint = described(server.port)
        start(FastSender(endpoint), endpoint=endpoint)
        await completed(pool, mailing)
    found = await outcomes(pool, mailing)
    assert found[gone] == (Status.SKIPPED, Reason.OPTED_OUT, 1)
    assert found[later] == (Status.DELIVERED, Reason.NONE, 3)
    classes = await pool.fetch("SELECT client_id, error_class FROM attempts ORDER BY client_id, number")
    assert [(row["client_id"], row["error_class"]) for row in classes] == [
        (gone, ErrorClass.OPTED_OUT),
        (later, ErrorClass.TRANSIENT),
        (later, ErrorClass.TRANSIENT),
    ]
    await audit(pool)


async def test_a_batch_settles_each_message_by_its_result(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when a message has its neighbour's outcome, and when those that are retried drag the others along."""
    seen: Counter[str] = Counter()

    def result(phone: str) -> object:
        seen[phone] += 1
        match int(phone) % 10:
            case 1:
                return {"code": "bad"}
            case 2 if seen[phone] < 2:
                return {"code": "later"}
        return {"code": 0}

    def gateway(request: Request) -> Reply:
        return Reply(200, [result(one["to"]) for one in json.loads(request.body)])

    ids = await add_clients(pool, 1000)
    mailing = await add_mailing(pool)
    form = compile_request(
        RequestText(url="http://host/send", json=[{"to": "{phone}"}], batch=BatchText(100, results=Pointer()))
    )
    rules = AnswerRules(
        Match(frozenset({200}), Pointer.parse("/code"), typed([0])),
        (
            ErrorRule(Match(None, Pointer.parse("/code"), typed(["bad"])), ErrorClass.REFUSED),
            ErrorRule(Match(None, Pointer.parse("/code"), typed(["later"])), ErrorClass.TRANSIENT),
        ),
    )
    async with GatewayServer(gateway) as server:
        endpoint = replace(ENDPOINT, url=f"http://127.0.0.1:{server.port}/send", request=form, answers=rules)
        start(BatchingSender(FastSender(endpoint), endpoint), endpoint=endpoint)
        await completed(pool, mailing)
        requests = server.requests
    phones = {row["id"]: row["phone"] for row in await pool.fetch("SELECT id, phone FROM clients")}
    expected = {
        id_: {"1": (Status.FAILED, Reason.REFUSED, 1), "2": (Status.DELIVERED, Reason.NONE, 2)}.get(
            phones[id_][-1], (Status.DELIVERED, Reason.NONE, 1)
        )
        for id_ in ids
    }
    assert await outcomes(pool, mailing) == expected
    assert seen.total() == 1100
    assert requests < 100  # ten and two would do; the first of a bucket leave before the others are claimed
    await audit(pool)


SAYS_SO = AnswerRules(
    Match(None, Pointer.parse("/status"), typed(["0"])),
    (
        ErrorRule(Match(None, Pointer.parse("/status"), typed(["1"])), ErrorClass.THROTTLED),
        ErrorRule(Match(None, Pointer.parse("/status"), typed(["4"])), ErrorClass.CREDENTIALS),
    ),
    retry_after=Source.parse("/wait"),
)


@pytest.mark.parametrize("status", ["1", "4"])
async def test_what_speaks_of_us_inside_a_200_fails_nobody(status: str, pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the class of a description uses an attempt, or ends a message."""
    refusals = 0

    def gateway(request: Request) -> Reply:
        nonlocal refusals
        refusals += 1
        return Reply(200, {"status": status, "wait": 0.05} if refusals <= 6 else {"status": "0"})

    await add_clients(pool, 40)
    mailing = await add_mailing(pool, max_attempts=1)
    async with GatewayServer(gateway) as server:
        endpoint = replace(ENDPOINT, url=f"http://127.0.0.1:{server.port}/", answers=SAYS_SO, max_concurrency=4)
        start(FastSender(endpoint), endpoint=endpoint)
        await completed(pool, mailing)
    assert {outcome[0] for outcome in (await outcomes(pool, mailing)).values()} == {Status.DELIVERED}
    await audit(pool)
