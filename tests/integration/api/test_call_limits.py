"""What one caller may take: calls at once, calls a second, time, and the age of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status.rpc_status import from_call

from mailing.v1.client_service_pb2 import ImportClientsRequest, ListClientsRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.delivery_service_pb2 import WatchMessagesRequest
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from server.api import CallLimits, TransportSettings
from server.auth import Authenticator
from server.auth.tokens_file import TokensFile, new_token, token_line
from server.config import Settings
from server.runtime.api_settings import ApiSettings
from tests.integration.api.calls import imported, refused
from tests.integration.api.conftest import Service
from tests.support.api import serving
from tests.support.eventually import eventually
from tests.support.locks import CLIENTS, blocked, holding


@pytest.fixture
def api_settings(request: pytest.FixtureRequest) -> ApiSettings:
    """Return the settings that a test's `limited` mark names."""
    return ApiSettings(**request.param)


def limited(**limits: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("api_settings", [{"limits": CallLimits(**limits)}], indirect=True)


async def healthy(service: Service) -> None:
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def to_its_end(stream: Any) -> None:
    async for _ in stream:
        pass


@limited(calls=2)
async def test_one_call_too_many_at_once_is_rejected(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when calls are not counted, or not when they end."""
    async with holding(pool, CLIENTS):
        waiting = [asyncio.ensure_future(service.clients.ListClients(ListClientsRequest())) for _ in range(2)]
        await blocked(pool, 2)
        with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED") as info:
            await asyncio.gather(*(service.clients.ListClients(ListClientsRequest()) for _ in range(2)))
        assert info.metadata["limit"] == "2"
        await healthy(service)
    await asyncio.gather(*waiting)
    for _ in range(5):
        await service.clients.ListClients(ListClientsRequest())


@limited(per_second=4)
async def test_more_calls_a_second_are_rejected_with_the_time_to_wait(service: Service) -> None:
    """Fails when nothing is taken from the bucket, and when it is never filled again."""
    for _ in range(3):
        await service.clients.ListClients(ListClientsRequest())
    await imported(service, [])
    with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED") as info:
        await asyncio.gather(*(service.clients.ListClients(ListClientsRequest()) for _ in range(8)))
    assert info.metadata["limit"] == "4"
    for _ in range(8):
        await healthy(service)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.gather(*(service.clients.ListClients(ListClientsRequest()) for _ in range(8)))
    status, retry = from_call(caught.value), RetryInfo()
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    assert 0 < retry.retry_delay.ToMicroseconds() <= 250_000

    async def welcome() -> bool:
        try:
            await service.clients.ListClients(ListClientsRequest())
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(welcome)


@limited(longest=0.3)
@pytest.mark.parametrize("deadline", [None, 60.0])
async def test_a_call_lasts_no_longer_than_the_service_allows(
    service: Service, pool: asyncpg.Pool, deadline: float | None
) -> None:
    """Fails, by the suite's patience, when the caller's deadline alone counts."""
    async with holding(pool, CLIENTS):
        with refused("DEADLINE_EXCEEDED", "LIMIT_REACHED") as info:
            await service.clients.ListClients(ListClientsRequest(), timeout=deadline)
        assert info.metadata["limit"] == "0.3"
    await service.clients.ListClients(ListClientsRequest())


@limited(longest=0.1)
async def test_an_import_may_last_longer_than_a_call(service: Service) -> None:
    """Fails when what takes a stream has the deadline of a unary call."""

    async def slowly() -> AsyncIterator[ImportClientsRequest]:
        yield ImportClientsRequest()
        await asyncio.sleep(0.5)  # longer than a call may last, by several of its timer's ticks
        yield ImportClientsRequest()

    answer = await service.clients.ImportClients(slowly())
    assert answer.created == 0


@limited(stream_age=0.5)
async def test_a_stream_that_lasts_too_long_ends_with_its_reason(service: Service) -> None:
    """Fails, by the suite's patience, when streams have no age; without a reason when gRPC ends them."""
    stream = DeliveryServiceStub(service.channel).WatchMessages(WatchMessagesRequest())
    with refused("UNAVAILABLE", "CONNECTION_AGED"):
        await asyncio.wait_for(to_its_end(stream), 20)


def test_streams_end_before_their_connections() -> None:
    """Fails when gRPC may close a connection with a stream that is not yet to end."""
    chosen = ApiSettings.of(Settings(connection_age=100, connection_grace=20))
    assert chosen.limits.stream_age == 120
    assert chosen.transport.connection_grace > 120
    assert dict(ApiSettings.of(Settings(connection_age=30_000_000)).transport.options())


@pytest.mark.parametrize(
    "api_settings", [{"transport": TransportSettings(connection_age=0.5, connection_grace=0.2)}], indirect=True
)
async def test_a_connection_ages_and_calls_go_on_over_a_new_one(service: Service) -> None:
    """Fails, by the suite's patience, without a limit of age: the stream would never end."""
    stream = DeliveryServiceStub(service.channel).WatchMessages(WatchMessagesRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(to_its_end(stream), 20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    for _ in range(50):
        await service.clients.ListClients(ListClientsRequest())


async def test_a_connection_on_which_nothing_is_said_is_closed(pool: asyncpg.Pool) -> None:
    """Fails, by the suite's patience, with gRPC's own two minutes."""
    settings = ApiSettings(transport=TransportSettings(handshake_timeout=0.2))
    async with serving(pool, settings=settings) as (_, address):
        reader, writer = await asyncio.open_connection(*address.split(":"))
        await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def test_callers_of_one_host_with_tokens_of_their_own_do_not_share(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Fails when the host counts although callers say who they are."""
    tokens = {name: new_token() for name in ("billing", "shop")}
    lines = [token_line(name, token, ["all"]) for name, token in tokens.items()]
    (tmp_path / "tokens").write_text("\n".join(lines))
    authenticator = Authenticator(TokensFile(tmp_path / "tokens"))
    settings = ApiSettings(limits=CallLimits(per_second=3))

    async def calls(address: str, name: str, number: int) -> None:
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub, metadata = ClientServiceStub(channel), (("authorization", f"Bearer {tokens[name]}"),)
            await asyncio.gather(*(stub.ListClients(ListClientsRequest(), metadata=metadata) for _ in range(number)))

    async with serving(pool, authenticator=authenticator, settings=settings) as (_, address):
        await calls(address, "billing", 3)
        await calls(address, "shop", 3)
        with refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED"):
            await calls(address, "billing", 8)
