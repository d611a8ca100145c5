"""Endpoints listed, probed, and tried with a test message: real calls, real requests."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import orjson
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.model.endpoints import Endpoint
from mailing.v1.admin_service_pb2 import ListEndpointsRequest, ProbeEndpointRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.dispatch_pb2 import EndpointStatus
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import SendTestMessageRequest, SendTestMessageResponse
from mailing.v1.message_pb2 import Attempt
from server.config.types import ConfiguredEndpoint
from tests.conformance.scripted_endpoint import ScriptedEndpoint, answers, http
from tests.integration.api.calls import add_client, refused
from tests.integration.api.conftest import Hints, Service
from tests.integration.api.mailing_calls import create, update
from tests.support.api import serving

if TYPE_CHECKING:  # the names of asyncio's stubs exist for the type checker only
    from mailing.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

SEND_OFF = http(b'{"code":0,"message":"OK"}')
LEDGER_BEGINS = 1 << 32


@dataclass
class Trying(Service):
    """A service that knows some endpoints."""

    admin: AdminServiceAsyncStub = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.admin = AdminServiceStub(self.channel)

    async def probe(self, name: str = "") -> Attempt:
        return (await self.admin.ProbeEndpoint(ProbeEndpointRequest(endpoint=name))).attempt

    async def test(self, phone: str = "79261234567", **source: Any) -> SendTestMessageResponse:
        return await self.mailings.SendTestMessage(SendTestMessageRequest(phone=phone, **source))


Serve = Callable[..., Awaitable[Trying]]


@pytest.fixture
async def serve(pool: asyncpg.Pool) -> AsyncIterator[Serve]:
    """Start services that know the given endpoints."""
    async with AsyncExitStack() as stack:

        async def start(*endpoints: Endpoint) -> Trying:
            configured = [ConfiguredEndpoint(one, "fast", "a test") for one in endpoints]
            server, address = await stack.enter_async_context(serving(pool, endpoints=configured))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            return Trying(channel, CollectorRegistry(), Hints(), lambda: server.stop(0.5), address)

        yield start


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedEndpoint]:
    async with ScriptedEndpoint(answers(SEND_OFF)) as endpoint:
        yield endpoint


def default(gateway: ScriptedEndpoint, **fields: Any) -> Endpoint:
    return replace(Endpoint("default", gateway.url, "t0ken"), **fields)


def bodies(gateway: ScriptedEndpoint) -> list[dict[str, Any]]:
    return [orjson.loads(request.body) for request in gateway.requests]


async def listed(service: Trying) -> list[tuple[str, str, str]]:
    answer = await service.admin.ListEndpoints(ListEndpointsRequest())
    breaker = EndpointStatus.Breaker.Name
    return [(one.name, breaker(one.status.breaker), one.status.last_error) for one in answer.endpoints]


async def test_endpoints_are_listed_by_name_without_secrets(serve: Serve) -> None:
    service = await serve(
        Endpoint("sms", "http://127.0.0.1:1/a?key=hidden&id=", "hidden", max_rate=12.5, max_concurrency=7),
        Endpoint("default", "http://127.0.0.1:1/b/", "hidden"),
    )
    answer = await service.admin.ListEndpoints(ListEndpointsRequest())
    assert [(one.name, one.url, one.max_rate, one.max_concurrency) for one in answer.endpoints] == [
        ("default", "http://127.0.0.1:1/b/", 0.0, 1024),
        ("sms", "http://127.0.0.1:1/a?key=***&id=", 12.5, 7),
    ]
    assert [one.status.name for one in answer.endpoints] == ["default", "sms"]
    assert "hidden" not in str(answer)


async def test_without_endpoints_the_list_is_empty(serve: Serve) -> None:
    assert await listed(await serve()) == []


async def test_the_breaker_is_the_one_that_replicas_share(serve: Serve, pool: asyncpg.Pool) -> None:
    names = ("closed", "half", "open", "untold")
    await pool.executemany(
        "INSERT INTO endpoints (name, breaker, last_error) VALUES ($1, $2, $3)",
        [("open", 2, "TIMEOUT"), ("half", 3, "SERVER 500"), ("closed", 1, ""), ("gone", 2, "not configured any more")],
    )
    assert await listed(await serve(*(Endpoint(name, "http://127.0.0.1:1/", "") for name in names))) == [
        ("closed", "BREAKER_CLOSED", ""),
        ("half", "BREAKER_HALF_OPEN", "SERVER 500"),
        ("open", "BREAKER_OPEN", "TIMEOUT"),
        ("untold", "BREAKER_CLOSED", ""),
    ]


async def test_a_host_that_does_not_resolve_is_reported(serve: Serve, pool: asyncpg.Pool) -> None:
    await pool.execute("INSERT INTO endpoints (name, last_error) VALUES ('lost', 'older')")
    service = await serve(Endpoint("lost", "http://nobody.invalid/", ""), Endpoint("near", "http://127.0.0.1:1/", ""))
    (_, breaker, error), near = await listed(service)
    assert breaker == "BREAKER_CLOSED"
    assert error.startswith("the host nobody.invalid ")
    assert near == ("near", "BREAKER_CLOSED", "")


async def test_a_probe_is_a_message_that_reaches_nobody(serve: Serve, gateway: ScriptedEndpoint) -> None:
    service = await serve(default(gateway))
    answer = await service.admin.ProbeEndpoint(ProbeEndpointRequest())
    [request], [body] = gateway.requests, bodies(gateway)
    assert request.line == f"POST /send/{answer.message_id} HTTP/1.1"
    assert request.headers["authorization"] == "Bearer t0ken"
    assert request.headers["idempotency-key"] == str(answer.message_id) == str(body["id"])
    assert body["phone"] == 0
    assert 0 < answer.message_id < LEDGER_BEGINS
    attempt = answer.attempt
    assert (attempt.number, attempt.endpoint, attempt.endpoint_status, attempt.endpoint_code) == (1, "default", 200, 0)
    assert attempt.error_class == Attempt.ERROR_CLASS_UNSPECIFIED
    assert attempt.duration.ToMicroseconds() > 0
    assert attempt.HasField("time")


async def test_each_probe_opens_a_connection_of_its_own(serve: Serve, gateway: ScriptedEndpoint) -> None:
    """Fails when a sender is kept: the second probe would tell of the first one's connection."""
    service = await serve(default(gateway))
    await service.probe()
    await service.probe()
    assert gateway.accepted == 2
    await gateway.until(lambda: gateway.open == 0)


@pytest.mark.parametrize(
    ("answer", "error", "status", "code"),
    [
        (http(b'{"code":7}', "400 Bad Request"), Attempt.ERROR_CLASS_REFUSED, 400, 7),
        (http(b"no", "401 Unauthorized"), Attempt.ERROR_CLASS_CREDENTIALS, 401, None),
        (http(b'{"code":1}'), Attempt.ERROR_CLASS_REJECTED, 200, 1),
        (http(b"", "503 Busy", "Retry-After: 5"), Attempt.ERROR_CLASS_THROTTLED, 503, None),
        (b"SSH-2.0\r\n\r\n", Attempt.ERROR_CLASS_PROTOCOL, 0, None),
    ],
)
async def test_a_probe_that_fails_is_an_attempt_too(
    answer: bytes, error: Attempt.ErrorClass.ValueType, status: int, code: int | None, serve: Serve
) -> None:
    async with ScriptedEndpoint(answers(answer)) as gateway:
        attempt = await (await serve(default(gateway))).probe("default")
    assert (attempt.error_class, attempt.endpoint_status) == (error, status)
    assert (attempt.endpoint_code if attempt.HasField("endpoint_code") else None) == code


async def test_a_probe_of_nobody_says_how_far_it_got(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = await serve(
        Endpoint("closed", f"http://127.0.0.1:{port}/", ""),
        Endpoint("lost", "http://nobody.invalid/", ""),
        Endpoint("trusting", "https://127.0.0.1:1/", "", ca_file="/does/not/exist.pem"),
    )
    assert (await service.probe("closed")).error_class == Attempt.ERROR_CLASS_CONNECT
    assert (await service.probe("lost")).error_class == Attempt.ERROR_CLASS_RESOLVE
    attempt = await service.probe("trusting")
    assert attempt.error_class == Attempt.ERROR_CLASS_TLS
    assert "exist.pem" in attempt.response_excerpt


async def test_an_endpoint_that_is_not_configured_cannot_be_probed(serve: Serve) -> None:
    service = await serve(Endpoint("sms", "http://127.0.0.1:1/", ""), Endpoint("push", "http://127.0.0.1:1/", ""))
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND") as info:
        await service.probe("fax")
    assert info.metadata == {"endpoint": "fax", "known": "push,sms"}
    with pytest.raises(grpc.aio.AioRpcError, match=r"There is no endpoint 'default'; there are push, sms\."):
        await service.probe()


async def test_many_known_endpoints_fit_into_an_error(serve: Serve) -> None:
    names = [f"{number:02}{'x' * 62}" for number in range(99)]
    service = await serve(*(Endpoint(name, "http://127.0.0.1:1/", "") for name in names))
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND") as info:
        await service.probe("y" * 100)
    assert info.metadata["known"].split(",") == names[:20]


async def test_a_mailing_may_name_what_is_configured_and_nothing_else(serve: Serve) -> None:
    service = await serve(Endpoint("sms", "http://127.0.0.1:1/", ""), Endpoint("push", "http://127.0.0.1:1/", ""))
    made = await create(service, endpoint="sms")
    for wanted, missing in (("fax", "fax"), ("", "default")):
        with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND") as info:
            await create(service, endpoint=wanted)
        assert info.metadata == {"endpoint": missing, "known": "push,sms"}
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND"):
        await update(service, Mailing(id=made.id, endpoint="fax"), "endpoint")


async def test_a_test_message_is_rendered_for_the_client_with_the_phone(
    serve: Serve, gateway: ScriptedEndpoint
) -> None:
    service = await serve(default(gateway))
    await add_client(service, tag="gold", attributes={"name": "Ann"})
    made = await create(service, "Hi {attributes.name|you}, {tag} {operator_code} {timezone}: {phone}")
    answer = await service.test(mailing_id=made.id)
    [body] = bodies(gateway)
    assert body == {"id": answer.message_id, "phone": 79261234567, "text": answer.text}
    assert answer.text == "Hi Ann, gold 926 Europe/Moscow: 79261234567"
    assert answer.attempt.error_class == Attempt.ERROR_CLASS_UNSPECIFIED
    assert answer.attempt.endpoint == "default"


async def test_a_stranger_s_test_message_has_the_defaults(serve: Serve, gateway: ScriptedEndpoint) -> None:
    service = await serve(default(gateway))
    text = "Hi {attributes.name|you}, [{tag}{timezone}{attributes.city}] {operator_code} {phone}"
    answer = await service.test("79990000000", mailing=Mailing(text=text))
    assert answer.text == "Hi you, [] 999 79990000000"
    assert bodies(gateway)[0]["text"] == answer.text


async def test_a_second_test_message_has_another_id(serve: Serve, gateway: ScriptedEndpoint) -> None:
    """Fails when the id is made of mailing and client: an endpoint that knows ids would swallow the second."""
    service = await serve(default(gateway))
    client = await add_client(service)
    made = await create(service)
    ids = {(await service.test(mailing_id=made.id)).message_id for _ in range(3)}
    assert len(ids) == 3
    assert all(0 < one < LEDGER_BEGINS <= made.id << 32 | client.id for one in ids)
    assert {body["id"] for body in bodies(gateway)} == ids


async def test_a_test_message_goes_over_the_mailing_s_endpoint(serve: Serve, gateway: ScriptedEndpoint) -> None:
    async with ScriptedEndpoint(answers(SEND_OFF)) as other:
        service = await serve(default(gateway), Endpoint("other", other.url, "0ther"))
        made = await create(service, endpoint="other")
        assert (await service.test(mailing_id=made.id)).attempt.endpoint == "other"
        await service.test(mailing=Mailing(text="Hello", endpoint="other"))
        assert [one.headers["authorization"] for one in other.requests] == ["Bearer 0ther"] * 2
    assert gateway.requests == []


async def test_a_test_message_leaves_nothing_behind(
    serve: Serve, gateway: ScriptedEndpoint, pool: asyncpg.Pool
) -> None:
    service = await serve(default(gateway))
    await add_client(service)
    made = await create(service)
    gateway.script = answers(http(b"", "500 No"))
    assert (await service.test(mailing_id=made.id)).attempt.error_class == Attempt.ERROR_CLASS_SERVER
    assert len(gateway.requests) == 1
    for table in ("messages", "attempts", "journal", "endpoints", "rate_slots"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_mailing_in_any_state_can_be_tested(
    serve: Serve, gateway: ScriptedEndpoint, pool: asyncpg.Pool
) -> None:
    service = await serve(default(gateway))
    made = await create(service)
    for state in range(1, 6):
        await pool.execute("UPDATE mailings SET state = $2 WHERE id = $1", made.id, state)
        assert not (await service.test(mailing_id=made.id)).attempt.error_class


async def test_a_test_message_ends_within_the_endpoint_s_timeout(serve: Serve) -> None:
    async with ScriptedEndpoint(answers("hang")) as gateway:
        service = await serve(default(gateway, total_timeout=0.1))
        attempt = (await service.test(mailing=Mailing(text="Hello"))).attempt
        assert attempt.error_class == Attempt.ERROR_CLASS_TIMEOUT
        await gateway.until(lambda: gateway.open == 0)


async def test_a_caller_who_goes_away_takes_the_connection_along(serve: Serve) -> None:
    async with ScriptedEndpoint(answers("hang")) as gateway:
        service = await serve(default(gateway))
        call = service.admin.ProbeEndpoint(ProbeEndpointRequest())
        await gateway.until(lambda: bool(gateway.requests))
        call.cancel()
        await gateway.until(lambda: gateway.open == 0)


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (SendTestMessageRequest(mailing_id=1), ["phone"]),
        (SendTestMessageRequest(mailing_id=1, phone="+79261234567"), ["phone"]),
        (SendTestMessageRequest(mailing_id=1, phone="0"), ["phone"]),
        (SendTestMessageRequest(phone="79261234567"), ["mailing_id"]),
        (SendTestMessageRequest(mailing_id=-1, phone="x"), ["mailing_id", "phone"]),
        (SendTestMessageRequest(mailing=Mailing(), phone="79261234567"), ["mailing.text"]),
        (SendTestMessageRequest(mailing=Mailing(text="{nobody}"), phone=""), ["mailing.text", "phone"]),
        (SendTestMessageRequest(mailing=Mailing(text="a", endpoint="x" * 101), phone="1234567"), ["mailing.endpoint"]),
    ],
)
async def test_bad_fields_of_a_test_message_are_named_and_nothing_is_sent(
    request_: SendTestMessageRequest, paths: list[str], serve: Serve, gateway: ScriptedEndpoint
) -> None:
    service = await serve(default(gateway))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths):
        await service.mailings.SendTestMessage(request_)
    assert gateway.accepted == 0


async def test_a_test_message_needs_its_mailing_and_its_endpoint(
    serve: Serve, gateway: ScriptedEndpoint, pool: asyncpg.Pool
) -> None:
    service = await serve(default(gateway))
    with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
        await service.test(mailing_id=5)
    made = await create(service)
    await pool.execute("UPDATE mailings SET endpoint = 'gone' WHERE id = $1", made.id)
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND") as info:
        await service.test(mailing_id=made.id)
    assert info.metadata == {"endpoint": "gone", "known": "default"}
    bare = await serve()
    with pytest.raises(grpc.aio.AioRpcError, match=r"There is no endpoint 'default'; none is configured\."):
        await bare.test(mailing=Mailing(text="Hello"))
    assert gateway.accepted == 0
