"""What the httpx sender is there for: proxies and HTTP/2, with the same classes and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import pytest

from dispatcher.delivery.awaiting import ask
from dispatcher.delivery.httpx_sender import MAX_CONNECTIONS, HttpxSender
from dispatcher.model.states import ErrorClass
from dispatcher.verdict import judge
from tests.conformance.behaviours import MAX_BODY, OK
from tests.conformance.certificates import Certificates
from tests.conformance.scripted_endpoint import ScriptedEndpoint, Wire, answers, http
from tests.conformance.senders import HASTY, deliver, endpoint, nothing_is_left
from tests.conformance.slow_gateway import SlowGateway


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as proxy:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            sender = HttpxSender(endpoint("http://endpoint.example/send/"))
            assert judge(await deliver(sender, 16, "7", "Hello")).delivered
            await sender.close()
            assert proxy.requests[0].line == "POST http://endpoint.example/send/16 HTTP/1.1"
            assert proxy.requests[0].headers["host"] == "endpoint.example"

    asyncio.run(case())


def test_a_proxy_is_passed_by_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers("hang")) as proxy, ScriptedEndpoint(answers(http())) as server:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            sender = HttpxSender(endpoint(server.url))
            assert judge(await deliver(sender, 16, "7", "Hello")).delivered
            await sender.close()
            assert proxy.accepted == 0

    asyncio.run(case())


def test_a_proxy_that_opens_no_tunnel_is_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http(b"", "403 Forbidden"))) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            sender = HttpxSender(endpoint("https://endpoint.example/send/"))
            answer = await deliver(sender, 16, "7", "Hello")
            await sender.close()
            assert proxy.requests[0].line == "CONNECT endpoint.example:443 HTTP/1.1"
            assert "authorization" not in proxy.requests[0].headers
            assert (answer.error, answer.sent) == (ErrorClass.CONNECT, False)

    asyncio.run(case())


def test_a_proxy_that_hangs_ends_with_nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers("hang")) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            sender = HttpxSender(endpoint("https://endpoint.example/send/", HASTY))
            answer = await deliver(sender, 16, "7", "Hello")
            await sender.close()
            await proxy.until(lambda: proxy.open == 0)
            assert (answer.error, answer.sent) == (ErrorClass.TIMEOUT, False)

    asyncio.run(case())


def test_there_are_never_more_connections_than_httpx_bears() -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(0.01, http())) as server:
            sender = HttpxSender(endpoint(server.url))
            sends = [asyncio.create_task(deliver(sender, n, "7", "Hello")) for n in range(3 * MAX_CONNECTIONS)]
            assert all([judge(await send).delivered for send in sends])
            await sender.close()
            assert server.most_open <= MAX_CONNECTIONS

    asyncio.run(case())


Act = Callable[[h2.connection.H2Connection, int], None]


def speaks_http2(act: Act, certificates: Certificates) -> tuple[ScriptedEndpoint, list[dict[str, str]]]:
    """Return an endpoint that speaks HTTP/2 and act once per request, and the headers it will have seen."""
    seen: list[dict[str, str]] = []

    async def script(wire: Wire) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="ascii"))
        connection.initiate_connection()
        await wire.say(connection.data_to_send())
        while data := await wire.read():
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append({str(name): str(value) for name, value in event.headers})
                elif isinstance(event, h2.events.StreamEnded):
                    act(connection, event.stream_id)
            await wire.say(connection.data_to_send())

    context = certificates["good"]
    context.set_alpn_protocols(["h2"])
    return ScriptedEndpoint(script, context), seen


def respond(connection: h2.connection.H2Connection, stream: int, body: bytes = OK) -> None:
    connection.send_headers(stream, [(":status", "200")])
    for start in range(0, len(body), 8192):
        connection.send_data(stream, body[start : start + 8192])
    connection.end_stream(stream)


HTTP2: list[tuple[str, Act, ErrorClass]] = [
    ("an answer", respond, ErrorClass.NONE),
    ("a body beyond the cap", lambda c, s: respond(c, s, bytes(MAX_BODY + 1)), ErrorClass.TOO_LARGE),
    ("a reset of the stream", lambda c, s: c.reset_stream(s, 2), ErrorClass.DISCONNECT),
    ("a goodbye", lambda c, s: c.close_connection(2, last_stream_id=0), ErrorClass.DISCONNECT),
    ("nothing", lambda c, s: None, ErrorClass.TIMEOUT),
]


@pytest.mark.parametrize(("act", "error"), [row[1:] for row in HTTP2], ids=[row[0] for row in HTTP2])
def test_http2(act: Act, error: ErrorClass, certificates: Certificates) -> None:
    async def case() -> None:
        server, seen = speaks_http2(act, certificates)
        async with server:
            total = HASTY if error is ErrorClass.TIMEOUT else 8.0
            sender = HttpxSender(endpoint(server.url, total, ca_file=certificates.ca_file))
            for message_id in (16, 17) if error is ErrorClass.NONE else (16,):
                answer = await deliver(sender, message_id, "7", "Hello")
                assert (judge(answer).error_class, answer.sent) == (error, True)
                assert len(answer.body) <= MAX_BODY
            await sender.close()
            await server.until(lambda: server.open == 0)
            assert seen[0].items() >= {":method": "POST", ":path": "/send/16", "idempotency-key": "16"}.items()
            assert server.accepted == 1
        await nothing_is_left()

    asyncio.run(case())


def test_http2_writes_nothing_that_may_not_start_and_keeps_the_connection(certificates: Certificates) -> None:
    # Fails when `may_start` is not asked, or is asked before the handshake.
    async def case() -> None:
        server, seen = speaks_http2(respond, certificates)
        async with server, SlowGateway(server) as gateway:
            sender = HttpxSender(endpoint(gateway.url, ca_file=certificates.ca_file))
            opened: list[bool] = []

            def may_not() -> bool:
                opened.append(gateway.opened.is_set())
                return False

            refused = [asyncio.create_task(ask(sender, n, "7", "Hello", may_start=may_not)) for n in range(3)]
            allowed = [asyncio.create_task(deliver(sender, n, "7", "Hello")) for n in range(3, 6)]
            await gateway.greeted()
            assert opened == []
            gateway.opened.set()
            assert [await send for send in refused] == [None] * 3
            assert all([judge(await send).delivered for send in allowed])
            assert opened == [True] * 3
            assert await ask(sender, 6, "7", "Hello", may_start=may_not) is None
            assert judge(await deliver(sender, 7, "7", "Hello")).delivered
            await sender.close()
            await server.until(lambda: server.open == 0)
            assert sorted(headers[":path"] for headers in seen) == ["/send/3", "/send/4", "/send/5", "/send/7"]
            assert server.accepted == 1
        await nothing_is_left()

    asyncio.run(case())


def test_a_tunnel_is_opened_before_asking_whether_a_request_may_start(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case() -> None:
        async with (
            ScriptedEndpoint(answers(http()), certificates["good"]) as server,
            SlowGateway(server, tunnels=True) as proxy,
        ):
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            sender = HttpxSender(endpoint(server.url, ca_file=certificates.ca_file))
            opened: list[bool] = []

            def may_start() -> bool:
                opened.append(proxy.opened.is_set())
                return len(opened) > 1

            send = asyncio.create_task(ask(sender, 1, "7", "Hello", may_start=may_start))
            await proxy.greeted()
            assert opened == []
            proxy.opened.set()
            assert await send is None
            answer = await ask(sender, 2, "7", "Hello", may_start=may_start)
            assert answer is not None
            assert judge(answer).delivered
            assert opened == [True, True]
            assert [request.headers["idempotency-key"] for request in server.requests] == ["2"]
            await sender.close()
            await server.until(lambda: server.open == 0)

    asyncio.run(case())


def test_without_tls_it_is_http_1() -> None:
    async def case() -> None:
        async with ScriptedEndpoint(answers(http())) as server:
            sender = HttpxSender(endpoint(server.url))
            assert judge(await deliver(sender, 1, "7", "Hello")).delivered
            await sender.close()
            assert server.requests[0].line.endswith("HTTP/1.1")

    asyncio.run(case())
