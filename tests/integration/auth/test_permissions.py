"""Every method has its scope, every scope opens its methods and no others, and the caller is known inside."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry

from mailing.v1.admin_service_pb2 import WatchLogRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.delivery_service_pb2 import WatchMessagesRequest
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, GetMailingRequest, ListMailingsRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.api import CallLimits
from server.api.interceptors import identity
from server.api.interceptors.chain import interceptor_chain
from server.api.permissions import PERMISSIONS, Public
from server.api.server import SERVED
from server.auth import Authenticator
from server.domain.principals import Scope, caller
from server.runtime.api_settings import ApiSettings
from server.watch import StreamSettings
from tests.integration.api.calls import call, mailing, refused
from tests.integration.auth.conftest import Guarded, Start, Tokens, bearer
from tests.support.documents import page, section

METHODS = [method for service in SERVED for method in service.methods]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def test_every_method_that_is_served_is_in_the_table_and_nothing_else() -> None:
    """Fails when a method of any proto is left out."""
    v1alpha = [path_of(method) for method in REFLECTION.methods]
    v1 = [path.replace("v1alpha", "v1") for path in v1alpha]
    ours = [path_of(method) for method in METHODS]
    assert set(PERMISSIONS) == {*ours, *(path_of(method) for method in HEALTH.methods), *v1alpha, *v1}
    assert not [path for path in ours if PERMISSIONS[path] is Public.PUBLIC]
    assert {PERMISSIONS[path] for path in ours} == set(Scope)


def test_the_page_on_security_has_the_same_table() -> None:
    rows = section(page("security"), "## Scopes")
    for scope in Scope:
        methods = {path.rpartition("/")[2] for path, needed in PERMISSIONS.items() if needed is scope}
        row = next(line for line in rows.splitlines() if line.startswith(f"| `{scope}` |"))
        opened = row.split("|")[2].partition(";")[0].strip()
        assert set(opened.split(", ")) == methods


def test_reading_and_writing_are_distinguished_by_the_names_of_methods() -> None:
    reading = {path for path in PERMISSIONS if path.rpartition("/")[2].startswith(("Get", "List", "Export", "Preview"))}
    for path, scope in PERMISSIONS.items():
        if isinstance(scope, Scope) and ".AdminService" not in path and "/Watch" not in path:
            assert scope.value.endswith("read") == (path in reading), path


async def missing_scope(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Any) -> str:
    """Call with an empty request; return the scope that is missing, '' when none is."""
    try:
        await call(channel, method, metadata)
    except grpc.aio.AioRpcError as error:
        assert error.code() is not grpc.StatusCode.UNAUTHENTICATED  # noqa: PT017
        if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
            return ""
        with refused("PERMISSION_DENIED", "SCOPE_MISSING") as info:
            raise
        return info.metadata["scope"]
    return ""


@pytest.mark.parametrize("scope", Scope)
async def test_a_scope_opens_its_methods_and_no_others(start: Start, tokens: Tokens, scope: Scope) -> None:
    """Fails when a method of the table is given another scope."""
    metadata = tokens.make("somebody", scope)
    guarded = await start(
        authenticator=tokens.authenticator(), settings=ApiSettings(streams=StreamSettings(checkpoint=0.01))
    )
    for method in METHODS:
        needed = PERMISSIONS[path_of(method)]
        included = scope is Scope.ADMIN and needed is Scope.ADMIN_READ
        expected = "" if needed is scope or included else needed
        assert await missing_scope(guarded.channel, method, metadata) == expected, method.full_name


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_without_credentials_nothing_is_served(guarded: Guarded, method: MethodDescriptor) -> None:
    with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):
        await call(guarded.channel, method)


@pytest.fixture
async def guarded(start: Start, tokens: Tokens) -> Guarded:
    return await start(authenticator=tokens.authenticator())


async def test_a_method_that_is_not_in_the_table_is_closed(
    start: Start, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when what the table does not have is let through."""
    method = next(one for one in METHODS if one.name == "ListMailings")
    left_out = {path: needed for path, needed in PERMISSIONS.items() if path != path_of(method)}
    monkeypatch.setattr(identity, "PERMISSIONS", left_out)
    for authenticator in (Authenticator(), tokens.authenticator()):
        guarded = await start(authenticator=authenticator)
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            await call(guarded.channel, method)


async def test_health_is_open_and_tells_nothing(guarded: Guarded) -> None:
    health: Any = health_pb2_grpc.HealthStub(guarded.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer == health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


async def test_reflection_is_served_only_where_it_is_on(start: Start, tokens: Tokens) -> None:
    for on in (True, False):
        guarded = await start(authenticator=tokens.authenticator(), reflection=on)
        for version in ("v1", "v1alpha"):
            talk: Any = guarded.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            asking = talk(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            if on:
                assert await asking.read() != grpc.aio.EOF
                continue
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asking.read()
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_what_a_rejected_caller_sent_is_not_even_parsed(guarded: Guarded) -> None:
    send: Any = guarded.channel.unary_unary("/mailing.v1.MailingService/CreateMailing")
    with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):
        await send(b"\xff" * 1000)


async def test_the_caller_is_known_inside_of_each_kind_of_call(tokens: Tokens) -> None:
    """And nowhere else; fails when the interceptor does not set it, and when it leaks from call to call."""
    seen = list[str]()

    async def unary(request: object, context: Any) -> bytes:
        seen.append(str(caller()))
        return b""

    async def stream(request: object, context: Any) -> Any:
        seen.append(str(caller()))
        yield b""
        seen.append(str(caller()))

    handlers: dict[str, Any] = {
        "GetMailing": grpc.unary_unary_rpc_method_handler(unary, GetMailingRequest.FromString),
        "ListMailings": grpc.unary_stream_rpc_method_handler(stream, ListMailingsRequest.FromString),
    }
    billing, ops = tokens.make("billing", "all"), tokens.make("ops", "all")
    server = grpc.aio.server(interceptors=interceptor_chain(CollectorRegistry(), tokens.authenticator(), CallLimits()))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVED[1].full_name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        get: Any = channel.unary_unary("/mailing.v1.MailingService/GetMailing")
        many: Any = channel.unary_stream("/mailing.v1.MailingService/ListMailings")
        await get(b"", metadata=billing)
        assert [one async for one in many(b"", metadata=ops)] == [b""]
        await get(b"", metadata=billing)
    await server.stop(0)
    assert seen == ["token:billing", "token:ops", "token:ops", "token:billing"]
    assert str(caller()) == ""
    assert caller().scopes == frozenset()


async def test_nothing_is_stored_by_a_caller_who_may_not(start: Start, tokens: Tokens, pool: asyncpg.Pool) -> None:
    metadata = tokens.make("reader", "mailings.read")
    guarded = await start(authenticator=tokens.authenticator())
    stub: Any = MailingServiceStub(guarded.channel)
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        await stub.CreateMailing(CreateMailingRequest(mailing=mailing()), metadata=metadata)
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 0


async def test_streams_are_counted_by_caller(start: Start, tokens: Tokens) -> None:
    """Fails when the host is counted instead: both callers come from the same one."""
    first, second = tokens.make("first", "messages.read"), tokens.make("second", "messages.read")
    guarded = await start(
        authenticator=tokens.authenticator(),
        settings=ApiSettings(streams=StreamSettings(checkpoint=0.01), limits=CallLimits(streams=1)),
    )
    watching: Any = DeliveryServiceStub(guarded.channel)
    streams = [watching.WatchMessages(WatchMessagesRequest(), metadata=one) for one in (first, second)]
    for stream in streams:
        assert (await stream.read()).checkpoint
    with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED"):
        await watching.WatchMessages(WatchMessagesRequest(), metadata=first).read()
    for stream in streams:
        stream.cancel()


async def test_the_log_tells_whose_doing_a_change_was(start: Start, tokens: Tokens) -> None:
    """Fails when entries are written without the caller."""
    ops = tokens.make("ops", "all")
    for authenticator, metadata, name in (
        (Authenticator(), None, "anonymous"),
        (tokens.authenticator(), ops, "token:ops"),
    ):
        guarded = await start(authenticator=authenticator)
        mailings: Any = MailingServiceStub(guarded.channel)
        admin: Any = AdminServiceStub(guarded.channel)
        made = await mailings.CreateMailing(CreateMailingRequest(mailing=mailing()), metadata=metadata)
        log = admin.WatchLog(WatchLogRequest(mailing_id=made.mailing.id), metadata=metadata)
        entry = (await log.read()).entries[0]
        log.cancel()
        assert (entry.event, entry.principal) == ("mailing.created", name)


async def test_who_reads_mailings_gets_the_log_of_one_mailing_alone(start: Start, tokens: Tokens) -> None:
    """Fails when the log of all is given to who may read mailings."""
    reader, monitor = tokens.make("reader", Scope.MAILINGS_READ), tokens.make("monitor", Scope.ADMIN_READ)
    other, writer = tokens.make("other", Scope.MESSAGES_READ), tokens.make("writer", Scope.MAILINGS_WRITE)
    guarded = await start(authenticator=tokens.authenticator())
    mailings: Any = MailingServiceStub(guarded.channel)
    admin: Any = AdminServiceStub(guarded.channel)
    request = CreateMailingRequest(mailing=mailing())
    first = (await mailings.CreateMailing(request, metadata=writer)).mailing.id
    second = (await mailings.CreateMailing(request, metadata=writer)).mailing.id

    async def mailings_in_log(query: WatchLogRequest, metadata: Any) -> set[int]:
        log = admin.WatchLog(query, metadata=metadata)
        entries = (await log.read()).entries
        log.cancel()
        return {entry.mailing_id for entry in entries}

    one = WatchLogRequest(mailing_id=first)
    assert await mailings_in_log(one, reader) == await mailings_in_log(one, monitor) == {first}
    assert await mailings_in_log(WatchLogRequest(), monitor) == {first, second}
    for query, metadata in ((WatchLogRequest(), reader), (WatchLogRequest(client_id=5), reader), (one, other)):
        with refused("PERMISSION_DENIED", "SCOPE_MISSING") as info:
            await mailings_in_log(query, metadata)
        assert info.metadata["scope"] == Scope.ADMIN_READ


async def test_a_stream_ends_when_its_token_does(start: Start, tokens: Tokens) -> None:
    """Fails when a caller is checked at the start only: then it goes on for an hour."""
    reader, other = tokens.make("reader", "messages.read"), tokens.make("other", "messages.read")
    settings = ApiSettings(streams=StreamSettings(checkpoint=0.01), limits=CallLimits(recheck=0.1))
    guarded = await start(authenticator=tokens.authenticator(), settings=settings)
    watching: Any = DeliveryServiceStub(guarded.channel)
    streams = [watching.WatchMessages(WatchMessagesRequest(), metadata=one) for one in (reader, other)]
    for stream in streams:
        assert (await stream.read()).checkpoint
    lines = tokens.path.read_text().splitlines()
    tokens.path.write_text("\n".join(line for line in lines if not line.startswith("reader")) + "\n")
    last = ""
    with refused("UNAUTHENTICATED", "UNAUTHENTICATED") as info:
        async with asyncio.timeout(20):
            while True:
                last = (await streams[0].read()).resume_token
    assert last
    assert info.metadata["resume_token"] == last
    again = watching.WatchMessages(WatchMessagesRequest(resume_token=last), metadata=other)
    assert (await again.read()).checkpoint
    again.cancel()
    assert (await streams[1].read()).checkpoint
    streams[1].cancel()


async def test_refused_calls_of_a_host_are_rated_and_others_are_not(start: Start, tokens: Tokens) -> None:
    """Fails when callers without credentials may try as often as the network bears."""
    ops = tokens.make("ops", "all")
    settings = ApiSettings(limits=CallLimits(refused_per_second=4))
    guarded = await start(authenticator=tokens.authenticator(), settings=settings)
    stub: Any = MailingServiceStub(guarded.channel)
    tries = [stub.ListMailings(ListMailingsRequest(), metadata=bearer("mlg_nobody")) for _ in range(20)]
    codes = [await one.code() for one in tries]
    assert codes.count(grpc.StatusCode.UNAUTHENTICATED) <= 10
    assert {*codes} == {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    await stub.ListMailings(ListMailingsRequest(), metadata=ops)
