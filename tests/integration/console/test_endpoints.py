"""Endpoints in the console: the daily quota of one, and how much of today's is used."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.endpoints import Endpoint
from dispatcher.model.quotas import DayLimit, QuotaRequest
from server.config.types import ConfiguredEndpoint
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.support.api import serving
from tests.support.console import console_of


@pytest.mark.parametrize(("used", "shown"), [(250, "250 of 1,000, 25%"), (1000, "1,000 of 1,000, used up")])
async def test_an_endpoint_shows_its_daily_quota_and_what_is_used(pool: asyncpg.Pool, used: int, shown: str) -> None:
    limit = DayLimit(1000, "Europe/Moscow")
    limited = ConfiguredEndpoint(Endpoint("sms", "http://127.0.0.1:9/", "", day_limit=limit), "fast", "test")
    free = ConfiguredEndpoint(Endpoint("default", "http://127.0.0.1:9/", ""), "fast", "test")
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await storage.quotas.permit(QuotaRequest("endpoint/sms", limit, used))
    async with serving(pool, endpoints=[limited, free]) as (_, address), console_of(address) as browser:
        table = (await browser.get("/endpoints")).text
        assert shown in table
        assert "Europe/Moscow" in table
        assert table.count(" of 1,000") == 1
        overview = (await browser.get("/")).text
        assert shown in overview
