"""How streams end: the server stops, the caller vanishes or does not read, the database is away."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status.rpc_status import from_call

from mailing.v1.delivery_service_pb2 import WatchMailingRequest, WatchMessagesRequest
from server.api import CallLimits, TransportSettings
from server.runtime.api_settings import ApiSettings
from tests.integration.api.calls import refused
from tests.integration.watch.calls import Messages, Progress
from tests.integration.watch.conftest import Replica, Start
from tests.integration.watch.ledger import Work, append
from tests.integration.watch.proxy import FreezingProxy
from tests.support.eventually import eventually
from tests.support.ledger import add_clients


async def test_a_replica_that_stops_sends_where_to_resume(pool: asyncpg.Pool, start: Start, work: Work) -> None:
    await add_clients(pool, 16)
    mailing = await work.mailing()
    first, second = await start(), await start()
    messages, progress = await Messages(first).begun(), Progress(first, mailing.id)
    await progress.read()
    health: Any = health_pb2_grpc.HealthStub(first.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
    stopping = asyncio.create_task(first.server.stop(5.0))
    assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    with refused("UNAVAILABLE", "SHUTTING_DOWN") as info:
        while True:
            await messages.read()
    with refused("UNAVAILABLE", "SHUTTING_DOWN"):
        await progress.rest()
    health.cancel()
    await stopping
    (batch,) = await work.claim(mailing, 0)
    await work.settle(batch)
    resumed = Messages(second, resume_token=info.metadata["resume_token"])
    assert await resumed.until(1) == await work.settled(mailing.id)


async def test_a_thousand_callers_that_vanish_leave_nothing(pool: asyncpg.Pool, replica: Replica, work: Work) -> None:
    """Fails when a stream's generator is not closed, its reader not counted down, or its topic kept."""
    await add_clients(pool, 16)
    mailing = await work.mailing()
    before = len(asyncio.all_tasks())
    for _ in range(5):
        calls: list[Any] = [
            replica.delivery.WatchMessages(WatchMessagesRequest(mailing_id=mailing.id * (n % 2), from_start=n % 3 == 0))
            for n in range(100)
        ] + [replica.delivery.WatchMailing(WatchMailingRequest(mailing_id=mailing.id)) for _ in range(100)]
        await asyncio.gather(*(call.read() for call in calls[::2]))
        for call in calls:
            call.cancel()
    await nothing_is_left(replica, before)
    assert pool.get_size() - pool.get_idle_size() == 0
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'client%'"
    )
    assert await pool.fetchval(sessions) == pool.get_size() <= pool.get_max_size()
    await Messages(replica).begun()


async def test_a_connection_that_died_silently_is_noticed(pool: asyncpg.Pool, start: Start, work: Work) -> None:
    """Fails when the server sends no keepalive pings: nothing else shows that such a caller is gone."""
    await add_clients(pool, 16)
    mailing = await work.mailing()
    replica = await start(ApiSettings(transport=TransportSettings(keepalive_time=0.3, keepalive_timeout=0.3)))
    async with FreezingProxy(replica.address) as proxy, grpc.aio.insecure_channel(proxy.address) as channel:
        beyond = Replica(replica.server, proxy.address, channel)
        messages, progress = await Messages(beyond).begun(), Progress(beyond, mailing.id)
        await progress.read()
        assert watchers_of(replica) == (1, 1)
        proxy.freeze()
        await eventually(lambda: watchers_of(replica), lambda left: left == (0, 0))
        messages.cancel()  # only now: its end would have reached the server
        del progress


def test_a_dead_connection_is_noticed_within_half_a_minute() -> None:
    settings = TransportSettings()
    assert settings.keepalive_time + settings.keepalive_timeout <= 30


async def nothing_is_left(replica: Replica, tasks: int) -> None:
    """Return when a replica serves no stream, and there are no more tasks than these."""
    await eventually(lambda: watchers_of(replica), lambda left: left == (0, 0))
    await eventually(lambda: len(asyncio.all_tasks()), lambda count: count <= tasks)  # gRPC's own come and go


async def test_a_reader_that_never_reads_is_ended_with_a_token_and_hurts_nobody(
    pool: asyncpg.Pool, start: Start, work: Work
) -> None:
    mailing = await work.mailing()
    replica = await start(ApiSettings(limits=CallLimits(unread=0.3)))
    options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(replica.address, options) as channel:
        stuck: Any = Replica(replica.server, replica.address, channel).delivery.WatchMessages(WatchMessagesRequest())
        assert (await stuck.read()).checkpoint
        others = await Messages(replica).begun()
        for _ in range(100):
            await append(pool, mailing.id, 16, 2, clients=500)
        await others.until(50_000)
        await eventually(lambda: watchers_of(replica), lambda left: left == (1, 0))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(stuck)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status, info = from_call(caught.value), ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert info.reason == "READER_TOO_SLOW"
        resumed = Messages(replica, resume_token=info.metadata["resume_token"])
        await resumed.read()


async def drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def watchers_of(replica: Replica) -> tuple[object, object]:
    """Return how many streams of messages and of mailings a replica has."""
    watchers = replica.server.samples()["mailing_watchers"]
    return watchers[("messages",)], watchers[("mailing",)]


async def test_streams_outlive_an_absence_of_the_database(pool: asyncpg.Pool, replica: Replica, work: Work) -> None:
    await add_clients(pool, 16)
    mailing = await work.mailing()
    (batch,) = await work.claim(mailing, 0)
    messages, progress = await Messages(replica).begun(), Progress(replica, mailing.id, 50)
    await progress.read()
    await pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await work.settle(batch)
    await messages.until(1)
    state = await progress.read()
    assert state is not None
    assert state.progress.delivered == 1
