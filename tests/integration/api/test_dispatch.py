"""AdminService: replicas as they are, settings for all of them, and the emergency stop."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from dispatcher.model.settings import DispatchSettings, SettingOverrides
from dispatcher.model.states import MailingState
from mailing.v1.admin_service_pb2 import (
    GetDispatchRequest,
    PauseDispatchRequest,
    ResumeDispatchRequest,
    UpdateDispatchSettingsRequest,
    WatchDispatchRequest,
)
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.dispatch_pb2 import DispatchSettings as Message
from mailing.v1.dispatch_pb2 import EndpointStatus
from server.storage.database import Database
from server.storage.replicas import ReplicaStore
from server.watch.replica_hub import ReplicaHub
from tests.integration.api.calls import refused
from tests.integration.api.conftest import Service
from tests.support.ledger import add_mailing

if TYPE_CHECKING:
    from mailing.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

STATUS = {
    "in_flight": 3,
    "concurrency_limit": 64,
    "poll_interval": 1.5,
    "poll_reason": "backed off",
    "backlog": 997,
    "rate": 12.5,
    "latency_p50": 0.002,
    "latency_p99": 0.25,
    "mailing_ids": [4, 7],
    "endpoints": [
        {"name": "default", "in_flight": 3, "concurrency_limit": 64, "failure_ratio": 0.5, "last_error": "timeout"}
    ],
}


@pytest.fixture
def admin(service: Service) -> AdminServiceAsyncStub:
    stub: AdminServiceAsyncStub = AdminServiceStub(service.channel)
    return stub


async def add_replica(pool: asyncpg.Pool, status: dict[str, Any], alive_for: float = 60.0) -> str:
    row = "INSERT INTO replicas (id, host, pid, started_at, beats_until, status)"
    replica_id = uuid4()
    await pool.execute(
        f"{row} VALUES ($1, 'here', 77, now(), now() + $2::interval, $3)",
        replica_id,
        timedelta(seconds=alive_for),
        json.dumps(status),
    )
    return str(replica_id)


def seconds(value: float) -> Duration:
    span = Duration()
    span.FromTimedelta(timedelta(seconds=value))
    return span


async def update(admin: AdminServiceAsyncStub, *mask: str, **values: Any) -> Message:
    spans: dict[str, Any] = {
        name: seconds(value) if isinstance(value, float) else value for name, value in values.items()
    }
    settings = Message(**spans)
    request = UpdateDispatchSettingsRequest(settings=settings)
    if mask:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    return (await admin.UpdateDispatchSettings(request)).settings


async def test_replicas_are_shown_as_they_told_of_themselves(pool: asyncpg.Pool, admin: AdminServiceAsyncStub) -> None:
    replica_id = await add_replica(pool, STATUS)
    await add_replica(pool, STATUS, alive_for=-0.001)
    await pool.execute("INSERT INTO endpoints (name, breaker) VALUES ('default', 2)")
    (replica,) = (await admin.GetDispatch(GetDispatchRequest())).replicas
    assert (replica.id, replica.host, replica.process_id, replica.in_flight) == (replica_id, "here", 77, 3)
    assert (replica.concurrency_limit, replica.backlog, replica.rate_per_second) == (64, 997, 12.5)
    assert (replica.poll_interval, replica.poll_reason) == (seconds(1.5), "backed off")
    assert (replica.latency_p50, replica.latency_p99) == (seconds(0.002), seconds(0.25))
    assert list(replica.mailing_ids) == [4, 7]
    (endpoint,) = replica.endpoints
    assert (endpoint.name, endpoint.breaker, endpoint.in_flight) == ("default", EndpointStatus.BREAKER_OPEN, 3)
    assert (endpoint.failure_ratio, endpoint.last_error) == (0.5, "timeout")


async def test_a_replica_that_tells_little_is_shown_all_the_same(
    pool: asyncpg.Pool, admin: AdminServiceAsyncStub
) -> None:
    await add_replica(pool, {"endpoints": [{"name": "other"}]})
    (replica,) = (await admin.GetDispatch(GetDispatchRequest())).replicas
    assert not replica.HasField("latency_p50")
    assert replica.endpoints[0].breaker == EndpointStatus.BREAKER_CLOSED


async def test_settings_begin_as_the_replica_was_started(admin: AdminServiceAsyncStub) -> None:
    settings = (await admin.GetDispatch(GetDispatchRequest())).settings
    started = DispatchSettings()
    assert settings == Message(
        poll_min=seconds(started.poll_min),
        poll_max=seconds(started.poll_max),
        recheck_min=seconds(started.recheck_min),
        recheck_max=seconds(started.recheck_max),
        max_concurrency=started.max_concurrency,
    )


async def test_settings_change_by_mask_and_go_back(service: Service, admin: AdminServiceAsyncStub) -> None:
    changed = await update(admin, poll_max=2.0, max_concurrency=10)
    assert (changed.poll_max, changed.max_concurrency, changed.recheck_max) == (seconds(2), 10, seconds(60))
    assert service.hints.count == 1
    changed = await update(admin, "poll_min", poll_min=0.02, poll_max=30.0)
    assert (changed.poll_min, changed.poll_max, changed.max_concurrency) == (seconds(0.02), seconds(2), 10)
    changed = await update(admin, "max_concurrency")
    assert (changed.max_concurrency, changed.poll_max) == (1024, seconds(2))
    changed = await update(admin, "*", recheck_max=5.0)
    assert (changed.poll_min, changed.poll_max, changed.recheck_max) == (seconds(0.01), seconds(5), seconds(5))
    assert (await admin.GetDispatch(GetDispatchRequest())).settings == changed


@pytest.mark.parametrize(
    ("mask", "values", "paths"),
    [
        ((), {"poll_min": 0.001}, ["settings.poll_min"]),
        ((), {"poll_max": 61.0, "recheck_min": 0.01}, ["settings.poll_max", "settings.recheck_min"]),
        ((), {"max_concurrency": 10_001}, ["settings.max_concurrency"]),
        ((), {"poll_min": 6.0}, ["settings.poll_min"]),
        (("recheck_max",), {"recheck_max": 0.5}, ["settings.recheck_max"]),
        (("poll_minimum",), {"poll_min": 0.02}, ["update_mask"]),
    ],
)
async def test_bad_settings_are_named_and_change_nothing(
    pool: asyncpg.Pool, admin: AdminServiceAsyncStub, mask: tuple[str, ...], values: dict[str, Any], paths: list[str]
) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths):
        await update(admin, *mask, **values)
    assert await pool.fetchval("SELECT version FROM dispatch_settings") == 1


async def test_paused_is_only_read_and_changes_nothing(admin: AdminServiceAsyncStub) -> None:
    before = await update(admin, poll_min=0.02)
    assert await update(admin, paused=True) == before
    assert await update(admin, "paused", poll_min=0.03, paused=True) == before


async def test_a_request_without_settings_is_rejected(admin: AdminServiceAsyncStub) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "settings"):
        await admin.UpdateDispatchSettings(UpdateDispatchSettingsRequest(update_mask=FieldMask(paths=["*"])))


async def test_a_range_that_is_missed_is_reported(admin: AdminServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"settings\.poll_min: must be 10 ms to 1 minute"):
        await update(admin, poll_min=0.001)


async def test_a_shorter_recheck_brings_looks_forward(pool: asyncpg.Pool, admin: AdminServiceAsyncStub) -> None:
    mailing_id = await add_mailing(pool, state=MailingState.RUNNING)
    await pool.execute("UPDATE mailings SET recheck_at = now() + interval '1 h', recheck_interval = '1 h'")
    await update(admin, recheck_max=2.0)
    left = await pool.fetchval("SELECT recheck_at - now() FROM mailings WHERE id = $1", mailing_id)
    assert left <= timedelta(seconds=2)


async def test_the_stop_holds_until_it_is_taken_back(pool: asyncpg.Pool, admin: AdminServiceAsyncStub) -> None:
    for _ in range(2):
        assert (await admin.PauseDispatch(PauseDispatchRequest())).settings.paused
    assert await pool.fetchval("SELECT version FROM dispatch_settings") == 2
    assert (await admin.GetDispatch(GetDispatchRequest())).settings.paused
    assert (await update(admin, poll_max=2.0)).paused
    for _ in range(2):
        assert not (await admin.ResumeDispatch(ResumeDispatchRequest())).settings.paused
    assert await pool.fetchval("SELECT version FROM dispatch_settings") == 4


async def test_a_watcher_sees_changes_until_the_replica_ends(
    pool: asyncpg.Pool, service: Service, admin: AdminServiceAsyncStub
) -> None:
    watch = admin.WatchDispatch(WatchDispatchRequest(min_interval=seconds(0.1)))
    assert not (await anext(aiter(watch))).replicas
    replica_id = await add_replica(pool, STATUS)
    async for state in watch:
        if state.replicas:
            assert [one.id for one in state.replicas] == [replica_id]
            break
    await pool.execute("DELETE FROM replicas")
    async for state in watch:
        if not state.replicas:
            break
    stopping = asyncio.ensure_future(service.shut_down())
    with refused("UNAVAILABLE", "SHUTTING_DOWN"):
        async for _ in watch:
            pass
    await stopping


@pytest.mark.parametrize("interval", [0.099, -1.0, 3601.0])
async def test_an_interval_out_of_range_is_rejected(admin: AdminServiceAsyncStub, interval: float) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "min_interval"):
        await admin.WatchDispatch(WatchDispatchRequest(min_interval=seconds(interval))).read()


async def test_all_watchers_share_one_read_and_none_reads_without_them(pool: asyncpg.Pool) -> None:
    """Fails when each watcher reads for itself."""
    store = ReplicaStore(Database(pool), DispatchSettings(), lambda: None)
    reads = 0
    read = store.read

    async def counted() -> Any:
        nonlocal reads
        reads += 1
        return await read()

    store.read = counted  # type: ignore[method-assign]
    hub = ReplicaHub(store)
    watchers = [hub.watch(0.2) for _ in range(50)]
    for _ in range(5):
        assert {len(state.replicas) for state in await asyncio.gather(*map(anext, watchers))} == {0}
    assert reads <= 10
    for watcher in watchers:
        await watcher.aclose()
    before = reads
    await asyncio.sleep(0.5)
    assert reads == before


async def test_two_changes_at_once_are_both_kept(pool: asyncpg.Pool) -> None:
    """Fails when the row is read without a lock."""
    store = ReplicaStore(Database(pool), DispatchSettings(), lambda: None)
    await asyncio.gather(
        store.update(SettingOverrides(poll_min=0.02), ["poll_min"]),
        store.update(SettingOverrides(poll_max=3.0), ["poll_max"]),
        store.update(SettingOverrides(max_concurrency=5), ["max_concurrency"]),
    )
    overrides = (await store.read()).runtime_settings.overrides
    assert (overrides.poll_min, overrides.poll_max, overrides.max_concurrency) == (0.02, 3.0, 5)
