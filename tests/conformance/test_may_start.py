"""Nothing is written for a request that may not start, however long its connection took.

The tests fail when a sender asks before it connects, asks only once, or writes all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dispatcher.delivery.awaiting import ask
from dispatcher.delivery.http1 import FastSender
from dispatcher.delivery.http1 import pool as sender_module
from dispatcher.model.states import ErrorClass
from dispatcher.ports import Sender
from dispatcher.verdict import judge
from tests.conformance.certificates import Certificates
from tests.conformance.scripted_endpoint import Script, ScriptedEndpoint, Wire, answers, goes_stale, http
from tests.conformance.senders import HASTY, Contender, deliver, endpoint, nothing_is_left
from tests.conformance.slow_gateway import SlowGateway
from tests.support.eventually import eventually

Run = Callable[[Coroutine[Any, Any, None]], None]


class Asked:
    """A `may_start` that says its words in turn and keeps what `sees` told each time it was asked."""

    def __init__(self, *words: bool, sees: Callable[[], object] = lambda: None) -> None:
        self.saw: list[object] = []
        self._words = words
        self._sees = sees

    def __call__(self) -> bool:
        self.saw.append(self._sees())
        return self._words[len(self.saw) - 1]


def hears(heard: list[bytearray]) -> Script:
    """Return a script that answers every request and keep each byte that came, per connection."""

    async def script(wire: Wire) -> None:
        heard.append(mine := bytearray())
        while data := await wire.read():
            mine += data
            if mine.endswith(b"}"):
                await wire.say(http())

    return script


def lines(heard: list[bytearray]) -> list[bytes]:
    """Return what each connection's first bytes are, and of each request behind them: up to the version."""
    return [part for one in heard for part in bytes(one).split(b" HTTP/1.1\r\n")[:-1]]


async def closed(sender: Sender, server: ScriptedEndpoint) -> None:
    async with asyncio.timeout(5):
        await sender.close()
    await server.until(lambda: server.open == 0)


def test_it_is_asked_after_a_slow_handshake_and_nothing_is_written(
    contender: Contender, certificates: Certificates
) -> None:
    async def case() -> None:
        heard: list[bytearray] = []
        async with (
            ScriptedEndpoint(hears(heard), certificates["good"]) as server,
            SlowGateway(server) as gateway,
        ):
            sender = contender.make(endpoint(gateway.url, ca_file=certificates.ca_file))
            asked = Asked(False, sees=gateway.opened.is_set)
            sending = asyncio.create_task(ask(sender, 1, "7", "Hello", may_start=asked))
            await gateway.greeted()
            assert asked.saw == []
            gateway.opened.set()
            assert await sending is None
            assert asked.saw == [True]
            assert judge(await deliver(sender, 2, "7", "Hello")).delivered
            await closed(sender, server)
            assert lines(heard) == [b"POST /send/2"]
            assert sum(map(len, heard)) == max(map(len, heard)), "the first connection got something else"
            assert server.accepted == (2 if contender.is_httpx else 1)
        await nothing_is_left()

    contender.run(case())


def test_it_is_not_asked_when_there_is_no_connection_in_time(contender: Contender, certificates: Certificates) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http()), certificates["good"]) as server, SlowGateway(server) as gateway:
            sender = contender.make(endpoint(gateway.url, HASTY, ca_file=certificates.ca_file))
            asked = Asked()
            answer = await ask(sender, 1, "7", "Hello", may_start=asked)
            assert answer is not None
            assert (answer.sent, asked.saw, server.accepted) == (False, [], 0)
            await sender.close()

    contender.run(case())


def test_an_idle_connection_is_spared_what_may_not_start(contender: Contender) -> None:
    async def case() -> None:
        heard: list[bytearray] = []
        async with ScriptedEndpoint(hears(heard)) as server:
            sender = contender.make(endpoint(server.url))
            for message_id in range(1, 6):
                asked = Asked(bool(message_id % 2))
                answer = await ask(sender, message_id, "7", "Hello", may_start=asked)
                assert (answer is not None, len(asked.saw)) == (bool(message_id % 2), 1)
            await closed(sender, server)
            assert b"".join(heard).count(b"POST") == 3
            assert [b"Key: %d\r\n" % n in b"".join(heard) for n in range(1, 6)] == [True, False, True, False, True]
            assert server.accepted == (3 if contender.is_httpx else 1)

    contender.run(case())


def test_may_start_is_asked_after_a_wait_for_a_free_connection(contender: Contender) -> None:
    async def case() -> None:
        answered = asyncio.Event()

        async def script(wire: Wire) -> None:
            while True:
                await wire.request()
                await answered.wait()
                await wire.say(http())

        async with ScriptedEndpoint(script) as server:
            sender = contender.make(endpoint(server.url, max_concurrency=1))
            first = asyncio.create_task(ask(sender, 1, "7", "Hello"))
            await server.until(lambda: len(server.requests) == 1)
            asked = Asked(False, sees=answered.is_set)
            second = asyncio.create_task(ask(sender, 2, "7", "Hello", may_start=asked))
            third = asyncio.create_task(deliver(sender, 3, "7", "Hello"))
            await asyncio.sleep(0)
            answered.set()
            assert await second is None
            assert asked.saw == [True]
            assert judge(await third).delivered
            await first
            assert [request.headers["idempotency-key"] for request in server.requests] == ["1", "3"]
            assert server.accepted == (2 if contender.is_httpx else 1)
            await closed(sender, server)

    contender.run(case())


def test_it_is_asked_again_before_a_repetition(contender: Contender) -> None:
    async def case() -> None:
        async with goes_stale() as server:
            sender = contender.make(endpoint(server.url))
            await deliver(sender, 1, "7", "Hello")
            asked = Asked(True, True, sees=lambda: len(server.requests))
            answer = await ask(sender, 2, "7", "Hello", may_start=asked)
            assert answer is not None
            assert judge(answer).delivered
            assert asked.saw == [1, 2]
            await closed(sender, server)

    contender.run(case())


def test_a_repetition_that_may_not_start_leaves_the_outcome_unknown(contender: Contender) -> None:
    async def case() -> None:
        async with goes_stale() as server:
            sender = contender.make(endpoint(server.url))
            await deliver(sender, 1, "7", "Hello")
            asked = Asked(True, False, sees=lambda: len(server.requests))
            answer = await ask(sender, 2, "7", "Hello", may_start=asked)
            assert answer is not None
            assert (answer.status, answer.body, answer.error, answer.sent) == (0, b"", ErrorClass.DISCONNECT, True)
            assert asked.saw == [1, 2]
            assert judge(await deliver(sender, 3, "7", "Hello")).delivered
            assert [request.headers["idempotency-key"] for request in server.requests] == ["1", "2", "3"]
            assert server.accepted == (3 if contender.is_httpx else 2)
            await closed(sender, server)

    contender.run(case())


def test_it_is_asked_once_where_nothing_is_repeated(contender: Contender) -> None:
    async def case() -> None:
        async with goes_stale() as server:
            sender = contender.make(endpoint(server.url))
            await deliver(sender, 1, "7", "Hello")
            asked = Asked(True)
            answer = await ask(sender, 2, "7", "Hello", True, asked)
            assert answer is not None
            assert (answer.error, answer.sent, len(asked.saw)) == (ErrorClass.DISCONNECT, True, 1)
            await closed(sender, server)

    contender.run(case())


def test_a_connection_that_carried_nothing_may_be_stale_too(run: Run) -> None:
    # Fails when a connection that was put back unused counts as new: its end would cost an attempt.
    async def script(wire: Wire) -> None:
        await wire.request()
        if wire.number > 1:
            await wire.say(http())

    async def case() -> None:
        async with ScriptedEndpoint(script) as server:
            sender = FastSender(endpoint(server.url))
            assert await ask(sender, 1, "7", "Hello", may_start=Asked(False)) is None
            assert judge(await deliver(sender, 2, "7", "Hello")).delivered
            assert [request.connection for request in server.requests] == [1, 2]
            await closed(sender, server)

    run(case())


def test_a_connection_that_carried_nothing_is_dropped_when_idle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "IDLE_SECONDS", 0.05)

    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as server:
            sender = FastSender(endpoint(server.url))
            assert await ask(sender, 1, "7", "Hello", may_start=Asked(False)) is None
            await server.until(lambda: server.accepted == 1 and server.open == 0, within=4.0)
            await closed(sender, server)

    run(case())


def test_what_may_not_start_makes_no_connection_younger(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # To the endpoint it has been idle since the last answer, and the endpoint closes what is idle.
    monkeypatch.setattr(sender_module, "IDLE_SECONDS", 0.2)

    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as server:
            sender = FastSender(endpoint(server.url))
            await deliver(sender, 1, "7", "Hello")
            await eventually(
                lambda: ask(sender, 2, "7", "Hello", may_start=Asked(False)), lambda _: server.accepted == 2, within=4.0
            )
            await closed(sender, server)

    run(case())
