"""Daily quotas in the API: checked, stored, changed, previewed, and counted in ListEndpoints."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from dispatcher.model.endpoints import Endpoint
from dispatcher.model.quotas import DayLimit, QuotaRequest
from mailing.v1.admin_service_pb2 import ListEndpointsRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.config.types import ConfiguredEndpoint
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.api.calls import mailing, refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import create, get, update
from tests.support.api import serving
from tests.support.ledger import add_clients

NOON = datetime(2040, 3, 24, 12, tzinfo=UTC)
"""The day before Berlin's clocks are set forward, which no test lives to see."""


async def reserve(pool: asyncpg.Pool, key: str, limit: DayLimit, count: int) -> None:
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.quotas.permit(QuotaRequest(key, limit, count))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"max_per_day": -1}, "mailing.max_per_day"),
        ({"max_per_day": 10**13}, "mailing.max_per_day"),
        ({"max_per_day": 5, "max_per_day_timezone": "Mars/Base"}, "mailing.max_per_day_timezone"),
    ],
)
async def test_a_bad_quota_is_refused_with_its_field(service: Service, fields: dict[str, Any], path: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", path):
        await create(service, **fields)


async def test_a_quota_is_stored_and_may_be_changed_while_it_runs(service: Service) -> None:
    made = await create(service, "Hello", max_per_day=500, max_per_day_timezone="Europe/Moscow")
    stored = await get(service, made.id)
    assert (stored.max_per_day, stored.max_per_day_timezone) == (500, "Europe/Moscow")
    stored.max_per_day, stored.max_per_day_timezone = 20, "Asia/Tokyo"
    changed = await update(service, stored, "max_per_day", "max_per_day_timezone")
    assert (changed.max_per_day, changed.max_per_day_timezone) == (20, "Asia/Tokyo")


async def previewed(service: Service, **fields: Any) -> tuple[int, datetime | None]:
    request = PreviewMailingRequest(mailing=mailing("Hello", **fields))
    answer = await service.mailings.PreviewMailing(request)
    finish = answer.estimated_finish_time.ToDatetime(UTC) if answer.HasField("estimated_finish_time") else None
    return answer.sendable_before_end, finish


async def test_a_preview_counts_days(service: Service, pool: asyncpg.Pool) -> None:
    """25 of 100 leave on each day: the fourth begins at midnight in Berlin, the clocks having been changed before."""
    await add_clients(pool, 100)
    quota = {"max_per_day": 25, "max_per_day_timezone": "Europe/Berlin", "start_time": NOON}
    count, finish = await previewed(service, **quota)
    assert count == 100
    assert finish is not None
    assert timedelta(0) <= finish - datetime(2040, 3, 26, 22, tzinfo=UTC) < timedelta(seconds=1)
    assert await previewed(service, **quota, end_time=datetime(2040, 3, 25, 21, tzinfo=UTC)) == (50, None)
    assert await previewed(service, **quota, end_time=datetime(2040, 3, 25, 23, tzinfo=UTC)) == (75, None)


async def test_a_preview_holds_to_rate_and_quota_alike(service: Service, pool: asyncpg.Pool) -> None:
    await add_clients(pool, 100)
    both = {"max_per_day": 60, "max_rate": 0.001, "start_time": NOON, "end_time": NOON + timedelta(hours=24)}
    assert (await previewed(service, **both))[0] == 87  # 44 by the rate until midnight, 43 until noon
    both["max_per_day"] = 40
    assert (await previewed(service, **both))[0] == 80


async def test_what_left_today_is_not_available_again(service: Service, pool: asyncpg.Pool) -> None:
    await add_clients(pool, 100)
    made = await create(service, "Hello", max_per_day=30, max_per_day_timezone="UTC")
    await reserve(pool, f"mailing/{made.id}", DayLimit(30), 22)
    end = datetime.now(UTC).replace(hour=23, minute=59, second=59)
    await pool.execute("UPDATE mailings SET ends_at = $1", end)
    answer = await service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=made.id))
    assert answer.sendable_before_end == 8


async def test_list_endpoints_counts_the_day(pool: asyncpg.Pool) -> None:
    limit = DayLimit(1000, "Europe/Moscow")
    limited = ConfiguredEndpoint(Endpoint("sms", "http://127.0.0.1:9/", "", day_limit=limit), "fast", "test")
    free = ConfiguredEndpoint(Endpoint("default", "http://127.0.0.1:9/", ""), "fast", "test")
    await reserve(pool, "endpoint/sms", limit, 17)
    async with serving(pool, endpoints=[limited, free]) as (_, address), grpc.aio.insecure_channel(address) as channel:
        answer = await AdminServiceStub(channel).ListEndpoints(ListEndpointsRequest())
        found = [(one.name, one.max_per_day, one.max_per_day_timezone, one.sent_today) for one in answer.endpoints]
        assert found == [("default", 0, "", 0), ("sms", 1000, "Europe/Moscow", 17)]
        await add_clients(pool, 2000)
        request = PreviewMailingRequest(
            mailing=mailing("Hello", endpoint="sms", start_time=NOON, end_time=NOON + timedelta(hours=2))
        )
        preview = await MailingServiceStub(channel).PreviewMailing(request)
        assert preview.sendable_before_end == 1000
