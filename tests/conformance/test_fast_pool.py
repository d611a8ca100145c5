"""The fast sender's pool: which connection a request gets, when connections go, what closing leaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from dispatcher.delivery.http1 import FastSender
from dispatcher.delivery.http1 import pool as sender_module
from dispatcher.delivery.http1 import resolver as addresses_module
from dispatcher.delivery.http1.pool import PoolStatus
from dispatcher.delivery.http1.resolver import STALE, TTL, Address, Addresses, look_up
from dispatcher.model.endpoints import Answer
from dispatcher.model.states import ErrorClass
from dispatcher.verdict import judge
from tests.conformance.scripted_endpoint import ScriptedEndpoint, Wire, answers, http
from tests.conformance.senders import deliver, endpoint, nothing_is_left

Run = Callable[[Coroutine[Any, Any, None]], None]


class Gate(ScriptedEndpoint):
    """An endpoint that answers a request when it is let through: by its message id."""

    def __init__(self) -> None:
        super().__init__(self._script)
        self._gates: dict[str, asyncio.Event] = {}

    def let(self, *message_ids: int) -> None:
        for message_id in message_ids:
            self._gate(str(message_id)).set()

    async def holds(self, count: int) -> None:
        await self.until(lambda: len(self.requests) == count)

    def _gate(self, key: str) -> asyncio.Event:
        return self._gates.setdefault(key, asyncio.Event())

    async def _script(self, wire: Wire) -> None:
        while True:
            request = await wire.request()
            passed = asyncio.create_task(self._gate(request.headers["idempotency-key"]).wait())
            gone = asyncio.create_task(wire.hang())
            try:
                await asyncio.wait({passed, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                passed.cancel()
                gone.cancel()
                await asyncio.wait({passed, gone})
            await wire.say(http())


def sending(sender: FastSender, *message_ids: int) -> list[asyncio.Task[Answer]]:
    return [asyncio.create_task(deliver(sender, message_id, "7", "Hello")) for message_id in message_ids]


async def all_delivered(sends: list[asyncio.Task[Answer]]) -> bool:
    async with asyncio.timeout(10):
        return all([judge(await send).delivered for send in sends])


async def closed(sender: FastSender, server: ScriptedEndpoint) -> None:
    """Close the sender; nothing of it may be left."""
    async with asyncio.timeout(5):
        await sender.close()
    await server.until(lambda: server.open == 0)


def test_one_request_after_the_other_takes_one_connection(run: Run) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as server:
            sender = FastSender(endpoint(server.url))
            for message_id in range(50):
                assert judge(await deliver(sender, message_id, "7", "Hello")).delivered
            assert server.accepted == 1
            await closed(sender, server)

    run(case())


def test_there_are_never_more_connections_than_allowed(run: Run) -> None:
    async def case() -> None:
        async with Gate() as server:
            sender = FastSender(endpoint(server.url, max_concurrency=3))
            sends = sending(sender, *range(40))
            await server.holds(3)
            server.let(*range(40))
            assert await all_delivered(sends)
            assert (server.accepted, server.most_open) == (3, 3)
            await closed(sender, server)

    run(case())


def test_requests_that_wait_are_served_in_turn(run: Run) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as server:
            sender = FastSender(endpoint(server.url, max_concurrency=1))
            assert await all_delivered(sending(sender, *range(20)))
            assert [int(request.headers["idempotency-key"]) for request in server.requests] == list(range(20))
            await closed(sender, server)

    run(case())


def test_the_connection_used_last_is_used_first(run: Run) -> None:
    async def case() -> None:
        async with Gate() as server:
            sender = FastSender(endpoint(server.url))
            sends = dict(zip((1, 2, 3), sending(sender, 1, 2, 3), strict=True))
            await server.holds(3)
            connections = {int(one.headers["idempotency-key"]): one.connection for one in server.requests}
            for message_id in (3, 1, 2):
                server.let(message_id)
                await sends[message_id]
            server.let(4, 5)
            assert await all_delivered(sending(sender, 4, 5))
            assert [request.connection for request in server.requests[3:]] == [connections[2], connections[1]]
            await closed(sender, server)

    run(case())


def test_idle_connections_are_dropped_and_then_nothing_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "IDLE_SECONDS", 0.05)

    async def case() -> None:
        async with Gate() as server:
            sender = FastSender(endpoint(server.url))
            server.let(1, 2, 3)
            assert await all_delivered(sending(sender, 1, 2, 3))
            await server.until(lambda: server.open == 0, within=4.0)  # long before a total timeout has passed
            assert not sender.status.sweeping
            server.let(4)
            assert await all_delivered(sending(sender, 4))
            await closed(sender, server)

    run(case())


def test_a_connection_is_not_used_for_ever(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "LIFETIME", -1.0)

    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as server:
            sender = FastSender(endpoint(server.url))
            for message_id in (1, 2, 3):
                assert judge(await deliver(sender, message_id, "7", "Hello")).delivered
            assert server.accepted == 3
            await closed(sender, server)

    run(case())


def test_an_overdue_request_ends_on_time_beside_others_that_go_on(run: Run) -> None:
    total = 0.6

    async def case() -> None:
        async with Gate() as server:
            sender = FastSender(endpoint(server.url, total, max_concurrency=4))
            server.let(1, 3, 5, 7, 9)
            stuck = []
            for message_id in range(2, 10, 2):
                assert await all_delivered(sending(sender, message_id - 1))
                stuck += sending(sender, message_id)
                await asyncio.sleep(0.03)
            ended = [await send for send in stuck]
            assert [answer.error for answer in ended] == [ErrorClass.TIMEOUT] * 4
            # A sweep that missed its deadline would come a whole total timeout later.
            assert all(total <= answer.duration < total + 0.4 for answer in ended)
            await closed(sender, server)

    run(case())


def test_a_request_that_waits_for_a_connection_too_long_was_not_sent(run: Run) -> None:
    async def case() -> None:
        async with Gate() as server:
            sender = FastSender(endpoint(server.url, 0.3, max_concurrency=1))
            ended = [await send for send in sending(sender, 1, 2)]
            assert [answer.error for answer in ended] == [ErrorClass.TIMEOUT] * 2
            assert [answer.sent for answer in ended] == [True, False]
            await closed(sender, server)

    run(case())


def test_a_request_that_nobody_awaits_any_more_ends_by_itself(run: Run) -> None:
    async def case() -> None:
        async with Gate() as server:
            sender = FastSender(endpoint(server.url, max_concurrency=1))
            first, second = sending(sender, 1, 2)
            await server.holds(1)
            first.cancel()
            server.let(1, 2)
            assert await all_delivered([second])
            assert server.accepted == 1
            await closed(sender, server)
        await nothing_is_left()

    run(case())


@pytest.mark.parametrize("ticks", range(12))
def test_closing_at_any_moment_of_a_request_leaves_nothing(run: Run, ticks: int) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as server:
            sender = FastSender(endpoint(server.url, max_concurrency=2))
            sends = sending(sender, 1, 2, 3)
            for _ in range(ticks):
                await asyncio.sleep(0)
            await closed(sender, server)
            async with asyncio.timeout(5):
                ended = [await send for send in sends]
            assert {answer.error for answer in ended} <= {ErrorClass.NONE, ErrorClass.DISCONNECT}
            assert sender.status == PoolStatus()
            await server.until(lambda: server.open == 0)
        await nothing_is_left()

    run(case())


@pytest.fixture
def dead_ports() -> Iterator[dict[str, int]]:
    """Yield a port that refuses and one that never answers."""
    with socket.socket() as refusing, socket.socket() as silent:
        refusing.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        yield {"refusing": refusing.getsockname()[1], "silent": silent.getsockname()[1]}
        for filler in fillers:
            filler.close()


def found(*ports: int) -> Addresses:
    """Return addresses that are these ports of 127.0.0.1."""

    async def look_up(host: str, port: int) -> list[Address]:
        return [Address(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

    return Addresses("found.invalid", 1, look_up)


@pytest.mark.parametrize("kind", ["refusing", "silent"])
@pytest.mark.parametrize("dead_first", [True, False])
def test_a_dead_address_is_passed_over(run: Run, dead_ports: dict[str, int], kind: str, dead_first: bool) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http(b'{"code":0}', "200 OK", "Connection: close"))) as server:
            ports = sorted((dead_ports[kind], server.port), key=lambda port: (port == server.port) == dead_first)
            addresses = found(*ports)
            sender = FastSender(endpoint(server.url, connect_timeout=0.6), addresses=addresses)
            for message_id in range(4):
                assert judge(await deliver(sender, message_id, "7", "Hello")).delivered
            assert (await addresses.candidates())[0].sockaddr == ("127.0.0.1", server.port)
            await closed(sender, server)

    run(case())


def test_addresses_take_turns(run: Run) -> None:
    async def case() -> None:
        script = answers(http(b'{"code":0}', "200 OK", "Connection: close"))
        async with ScriptedEndpoint(script) as one, ScriptedEndpoint(script) as other:
            sender = FastSender(endpoint(one.url), addresses=found(one.port, other.port))
            for message_id in range(6):
                assert judge(await deliver(sender, message_id, "7", "Hello")).delivered
            assert (one.accepted, other.accepted) == (3, 3)
            await closed(sender, one)

    run(case())


def test_all_addresses_dead_is_a_failure_to_connect(run: Run, dead_ports: dict[str, int]) -> None:
    async def case() -> None:
        addresses = found(dead_ports["silent"], dead_ports["refusing"])
        sender = FastSender(endpoint("http://127.0.0.1/", connect_timeout=0.4), addresses=addresses)
        answer = await deliver(sender, 1, "7", "Hello")
        assert (answer.error, answer.sent) == (ErrorClass.CONNECT, False)
        await sender.close()

    run(case())


def test_names_are_looked_up_again_and_failures_live_on_the_last_answer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    now = 1000.0
    monkeypatch.setattr(addresses_module, "monotonic", lambda: now)

    async def fails_from_the_second_on(host: str, port: int) -> list[Address]:
        asked.append(host)
        return await look_up(host if len(asked) == 1 else "nowhere.invalid", port)

    async def case() -> None:
        nonlocal now
        addresses = Addresses("localhost", 80, fails_from_the_second_on)
        assert {address.sockaddr[1] for address in await addresses.candidates()} == {80}
        now += TTL - 1.0
        await addresses.candidates()
        assert len(asked) == 1
        now += STALE
        assert await addresses.candidates(), "an old answer is better than none"
        assert len(asked) == 2
        now += 1.0
        with pytest.raises(OSError, match="known"):
            await addresses.candidates()
        await addresses.close()

    run(case())


def test_what_is_remembered_of_answers_is_bounded(run: Run) -> None:
    async def script(wire: Wire) -> None:
        for n in range(300):
            await wire.request()
            await wire.say(http(b'{"code":0,"n":%d}' % n))

    async def case() -> None:
        async with ScriptedEndpoint(script) as server:
            sender = FastSender(endpoint(server.url))
            for n in range(300):
                answer = await deliver(sender, n, "7", "Hello")
                assert answer.body == b'{"code":0,"n":%d}' % n
            assert 0 < len(sender.known_answers) <= 64
            await closed(sender, server)

    run(case())
