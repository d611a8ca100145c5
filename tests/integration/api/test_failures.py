"""What callers see when something breaks, and what metrics make of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mailing.v1 import client_pb2
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    ExportClientsRequest,
    GetClientRequest,
    ImportClientsRequest,
    ListClientsRequest,
)
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, GetMailingRequest
from mailing.v1.message_service_pb2 import GetMessageRequest
from server.api import CannotListen
from tests.conftest import PostgresServer
from tests.integration.api.calls import add_client, client, imported, mailing, refused
from tests.integration.api.conftest import Service
from tests.support.api import make_api
from tests.support.eventually import eventually
from tests.support.locks import CLIENTS, blocked, holding


async def lock_out(postgres_server: PostgresServer, pool: asyncpg.Pool) -> None:
    """Take the database away from the pool: cuts its connections and let in no new ones."""
    name = await pool.fetchval("SELECT current_database()")
    admin = await asyncpg.connect(postgres_server.dsn())
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    finally:
        await admin.close()


async def let_in(postgres_server: PostgresServer, name: str) -> None:
    admin = await asyncpg.connect(postgres_server.dsn())
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await admin.close()


async def test_calls_are_unavailable_while_the_database_is_and_work_again_after(
    service: Service, pool: asyncpg.Pool, postgres_server: PostgresServer
) -> None:
    made = await add_client(service)
    name = await pool.fetchval("SELECT current_database()")
    await lock_out(postgres_server, pool)
    calls = (
        lambda: service.clients.GetClient(GetClientRequest(client_id=made.id)),
        lambda: service.clients.CreateClient(CreateClientRequest(client=client(79990000000))),
        lambda: service.clients.ListClients(ListClientsRequest()),
        lambda: imported(service, [client(79990000001)]),
        lambda: service.clients.ExportClients(ExportClientsRequest()).read(),
        lambda: service.mailings.CreateMailing(CreateMailingRequest(mailing=mailing())),
        lambda: service.mailings.GetMailing(GetMailingRequest(mailing_id=1)),
        lambda: service.messages.GetMessage(GetMessageRequest(message_id=1)),
    )
    for call in calls:
        with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
            await call()
    await let_in(postgres_server, name)
    assert (await service.clients.GetClient(GetClientRequest(client_id=made.id))).client == made


async def test_an_import_that_loses_its_database_stores_nothing(
    service: Service, pool: asyncpg.Pool, postgres_server: PostgresServer
) -> None:
    name = await pool.fetchval("SELECT current_database()")

    async def rows() -> AsyncIterator[ImportClientsRequest]:
        for start in range(79260000000, 79260012000, 500):
            if start == 79260006000:
                await lock_out(postgres_server, pool)
            yield ImportClientsRequest(clients=[client(start + n) for n in range(500)])

    with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
        await service.clients.ImportClients(rows())
    await let_in(postgres_server, name)
    assert not (await service.clients.ListClients(ListClientsRequest())).clients


async def test_calls_are_unavailable_when_every_connection_is_taken(service: Service, pool: asyncpg.Pool) -> None:
    taken = [await pool.acquire() for _ in range(10)]
    with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
        await service.clients.ListClients(ListClientsRequest())
    for connection in taken:
        await pool.release(connection)
    await service.clients.ListClients(ListClientsRequest())


async def test_a_call_whose_statement_is_cancelled_is_unavailable(service: Service, pool: asyncpg.Pool) -> None:
    async with holding(pool, CLIENTS):
        call = service.clients.ListClients(ListClientsRequest())
        await blocked(pool)
        await pool.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
            await call


async def test_an_internal_error_shows_an_id_and_never_its_cause(
    service: Service, pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.execute("ALTER TABLE clients RENAME TO secret")
    with caplog.at_level(logging.ERROR), refused("INTERNAL", "INTERNAL") as info:
        await service.clients.ListClients(ListClientsRequest())
    assert info.metadata["error_id"] in caplog.text
    assert "does not exist" in caplog.text
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.clients.ExportClients(ExportClientsRequest()).read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "clients" not in (caught.value.details() or "")


async def test_a_taken_port_is_one_sentence(service: Service, pool: asyncpg.Pool) -> None:
    first, second = await make_api(pool), await make_api(pool)
    port = first.bind("127.0.0.1:0")
    with pytest.raises(CannotListen, match=f"Cannot listen on 127.0.0.1:{port}: address already in use"):
        second.bind(f"127.0.0.1:{port}")
    with pytest.raises(CannotListen, match=r"Cannot listen on host\.invalid:1: "):
        second.bind("host.invalid:1")
    await first.stop(0)
    await second.stop(0)


def counted(service: Service, method: str, kind: str, code: str) -> float:
    labels = {"grpc_type": kind, "grpc_service": "mailing.v1.ClientService", "grpc_method": method, "grpc_code": code}
    return service.registry.get_sample_value("grpc_server_handled_total", labels) or 0.0


def messages(service: Service, name: str, method: str, kind: str) -> float:
    labels = {"grpc_type": kind, "grpc_service": "mailing.v1.ClientService", "grpc_method": method}
    return service.registry.get_sample_value(f"grpc_server_{name}", labels) or 0.0


async def test_metrics_count_answers_and_refusals_of_every_kind_of_call(service: Service) -> None:
    await add_client(service)
    with refused("ALREADY_EXISTS", "PHONE_TAKEN"):
        await add_client(service)
    await imported(service, [client(79990000000)], [client(79990000001)])
    assert [len(piece.clients) async for piece in service.clients.ExportClients(ExportClientsRequest())] == [3]
    bad = ExportClientsRequest(filter=client_pb2.ClientFilter(timezones=["Nowhere"]))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "filter.timezones[0]"):
        await service.clients.ExportClients(bad).read()
    assert counted(service, "CreateClient", "UNARY", "OK") == 1
    assert counted(service, "CreateClient", "UNARY", "ALREADY_EXISTS") == 1
    assert counted(service, "ImportClients", "CLIENT_STREAMING", "OK") == 1
    assert counted(service, "ExportClients", "SERVER_STREAMING", "OK") == 1
    assert counted(service, "ExportClients", "SERVER_STREAMING", "INVALID_ARGUMENT") == 1
    assert messages(service, "started_total", "CreateClient", "UNARY") == 2
    assert messages(service, "handling_seconds_count", "CreateClient", "UNARY") == 2
    assert messages(service, "msg_received_total", "ImportClients", "CLIENT_STREAMING") == 2
    assert messages(service, "msg_sent_total", "ImportClients", "CLIENT_STREAMING") == 1
    assert messages(service, "msg_sent_total", "ExportClients", "SERVER_STREAMING") == 1


async def test_metrics_count_calls_that_stream_both_ways(service: Service) -> None:
    """Reflection is one."""
    reflection = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    labels = {"grpc_type": "BIDI_STREAMING", "grpc_service": "grpc.reflection.v1alpha.ServerReflection"}
    labels["grpc_method"] = "ServerReflectionInfo"

    def value(name: str, **more: str) -> float:
        return service.registry.get_sample_value(f"grpc_server_{name}", labels | more) or 0.0

    call = reflection.ServerReflectionInfo(iter([asked, asked]))
    assert len([answer async for answer in call]) == 2
    assert value("handled_total", grpc_code="OK") == 1
    assert (value("msg_received_total"), value("msg_sent_total")) == (2, 2)
    assert value("started_total") == value("handling_seconds_count") == 1


async def test_metrics_count_an_import_that_its_caller_left(service: Service) -> None:
    """GRPC lets the requests end as if they were all there; nothing of them may be stored."""
    call = service.clients.ImportClients()
    await call.write(ImportClientsRequest(clients=[client(79260000001)]))
    received = ("msg_received_total", "ImportClients", "CLIENT_STREAMING")
    await eventually(lambda: messages(service, *received), lambda count: count == 1)
    call.cancel()
    await eventually(lambda: counted(service, "ImportClients", "CLIENT_STREAMING", "CANCELLED"))
    assert counted(service, "ImportClients", "CLIENT_STREAMING", "OK") == 0
    assert not (await service.clients.ListClients(ListClientsRequest())).clients


async def test_metrics_count_a_stream_that_its_caller_left(service: Service) -> None:
    rows = [client(79260000000 + n, tag="x" * 100) for n in range(9000)]
    await imported(service, *(rows[n : n + 500] for n in range(0, 9000, 500)))
    call = service.clients.ExportClients(ExportClientsRequest())
    await call.read()
    call.cancel()
    await eventually(lambda: counted(service, "ExportClients", "SERVER_STREAMING", "CANCELLED"))


async def test_a_stream_whose_connection_broke_is_counted_as_cancelled(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when gRPC's own error of a write to nobody is taken for an internal one."""
    full = {f"a{n}": "x" * 1000 for n in range(64)}
    for n in range(79260000000, 79260000100, 50):
        await imported(service, [client(phone, attributes=full) for phone in range(n, n + 50)])
    for _ in range(50):
        async with grpc.aio.insecure_channel(service.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            calls = [ClientServiceStub(channel).ExportClients(ExportClientsRequest()) for _ in range(4)]
            await asyncio.gather(*(call.read() for call in calls))

    async def all_ended() -> bool:
        ends = [counted(service, "ExportClients", "SERVER_STREAMING", code) for code in ("CANCELLED", "OK", "INTERNAL")]
        return sum(ends) == 200

    await eventually(all_ended)
    assert not counted(service, "ExportClients", "SERVER_STREAMING", "INTERNAL")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_deadline_is_counted_as_one_and_frees_the_connection(service: Service, pool: asyncpg.Pool) -> None:
    async with holding(pool, CLIENTS):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.clients.ListClients(ListClientsRequest(), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: counted(service, "ListClients", "UNARY", "DEADLINE_EXCEEDED"))
    assert not (await service.clients.ListClients(ListClientsRequest())).clients
