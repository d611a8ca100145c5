"""Many messages in one request, by every sender: each has its own outcome, and none leaves that may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.delivery.awaiting import AwaitedRequest
from dispatcher.delivery.batching import BatchingSender
from dispatcher.described_answers import judge_of
from dispatcher.model.answers import AnswerRules, ErrorRule, Match, Pointer, Source, typed
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.request_batches import BatchText
from dispatcher.model.requests import RequestText, compile_request
from dispatcher.model.states import ErrorClass
from tests.conformance.gateways import Gateway, GatewayServer, Reply
from tests.conformance.scripted_endpoint import Request
from tests.conformance.senders import PATIENT, Contender

RULES = AnswerRules(
    Match(frozenset({200}), Pointer.parse("/ok"), typed([True])),
    (ErrorRule(Match(None, Pointer.parse("/ok"), typed(["no such number"])), ErrorClass.REFUSED),),
    provider_id=Source.parse("/ref"),
)
BY_ORDER = BatchText(3, Pointer.parse("/messages"), Pointer.parse("/results"))
BY_ID = BatchText(3, Pointer.parse("/messages"), Pointer.parse("/results"), Pointer.parse("/id"))


def endpoint(port: int, batch: BatchText = BY_ORDER, timeout: float = PATIENT) -> Endpoint:
    form = compile_request(
        RequestText(
            url=f"http://127.0.0.1:{port}/send",
            json={"from": "us", "messages": [{"to": "{phone}", "id": "{id:int}", "text": "{text}"}], "n": 1},
            batch=batch,
        )
    )
    return Endpoint("tested", f"http://127.0.0.1:{port}/send", "", timeout, timeout, request=form, answers=RULES)


def delivered(
    contender: Contender,
    gateway: Gateway,
    batch: BatchText = BY_ORDER,
    messages: int = 3,
    may_start: Callable[[int], bool] = lambda number: True,
    **changes: Any,
) -> list[Answer | None]:
    """Send messages 1 to `messages` and return their answers."""
    found: list[Answer | None] = []

    async def case() -> None:
        async with GatewayServer(gateway) as server:
            target = replace(endpoint(server.port, batch), **changes)
            sender = BatchingSender(contender.make(target), target)
            requests = [
                AwaitedRequest(n, f"7916000000{n}", "Hi", may_start=lambda n=n: may_start(n))  # type: ignore[misc]
                for n in range(1, messages + 1)
            ]
            for request in requests:
                sender.send(request)
            found.extend(await asyncio.gather(*(request.answer for request in requests)))
            await sender.close()
            assert server.complaints == []

    contender.run(case())
    return found


def classes(port: int, answers: Sequence[Answer | None], batch: BatchText = BY_ORDER) -> list[str]:
    judge = judge_of(endpoint(port, batch))
    return ["" if one is None else judge(one).provider_id or judge(one).error_class.name for one in answers]


def test_each_message_has_the_result_at_its_place(contender: Contender) -> None:
    """Fails when one result holds for all, and when a second request is not begun for what exceeds the first."""
    bodies: list[Any] = []

    def gateway(request: Request) -> Reply:
        assert "idempotency-key" not in request.headers
        bodies.append(json.loads(request.body))
        results = [
            {"ok": True, "ref": f"R{one['id']}"} if one["id"] != 2 else {"ok": "no such number"}
            for one in bodies[-1]["messages"]
        ]
        return Reply(200, {"results": results})

    answers = delivered(contender, gateway, messages=4)
    assert classes(1, answers) == ["R1", "REFUSED", "R3", "R4"]
    assert sorted(len(body["messages"]) for body in bodies) == [1, 3]
    assert {(body["from"], body["n"]) for body in bodies} == {("us", 1)}
    [whole] = [body for body in bodies if len(body["messages"]) == 3]
    assert whole["messages"] == [{"to": f"7916000000{n}", "id": n, "text": "Hi"} for n in (1, 2, 3)]


def test_results_may_name_their_messages_in_any_order(contender: Contender) -> None:
    """Fails when results are taken by their place; a message without one is not known to have left."""

    def gateway(request: Request) -> Reply:
        return Reply(200, {"results": [{"id": 3, "ok": "no such number"}, {"id": "1", "ok": True, "ref": "R1"}]})

    assert classes(1, delivered(contender, gateway, BY_ID), BY_ID) == ["R1", "UNREADABLE", "REFUSED"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(200, {"results": [{"ok": True}]}), "UNREADABLE"),  # of three
        (Reply(200, {"results": "fine"}), "UNREADABLE"),
        (Reply(200, {}), "UNREADABLE"),
        (Reply(200), "UNREADABLE"),
        (Reply(200, {"results": [None, None, None]}), "REJECTED"),
        (Reply(429, {"error": "slower"}), "THROTTLED"),
        (Reply(401, {"results": "none"}), "CREDENTIALS"),
        (Reply(500), "SERVER"),
        (Reply(400, {"ok": "no such number"}), "REFUSED"),
    ],
)
def test_an_answer_without_results_holds_for_all(contender: Contender, reply: Reply, error: str) -> None:
    """Fails when an unreadable answer counts as delivered, or as certainly not arrived."""
    assert classes(1, delivered(contender, lambda _: reply)) == [error] * 3


def test_one_that_may_not_start_keeps_the_request_back(contender: Contender) -> None:
    """Fails when windows are asked before the request has its connection, or of one message only."""
    seen: list[Request] = []

    def gateway(request: Request) -> Reply:
        seen.append(request)
        return Reply(200, {"results": [{"ok": True}] * 3})

    assert delivered(contender, gateway, may_start=lambda number: number != 2) == [None, None, None]
    assert seen == []


def test_without_results_one_answer_is_everybodys(contender: Contender) -> None:
    batch = BatchText(3, Pointer.parse("/messages"))
    answers = delivered(contender, lambda _: Reply(200, {"ok": True, "ref": "all"}), batch)
    assert classes(1, answers, batch) == ["all"] * 3


def test_what_waits_when_it_is_closed_was_not_sent(contender: Contender) -> None:
    async def case() -> None:
        target = endpoint(1)
        sender = BatchingSender(contender.make(target), target)
        sender.send(request := AwaitedRequest(1, "7916", "Hi"))
        await sender.close()
        answer = await request.answer
        assert answer is not None
        assert (answer.error, answer.sent) == (ErrorClass.DISCONNECT, False)

    contender.run(case())
