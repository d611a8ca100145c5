"""Daily quotas and a replica that is killed: no day sees more than its quota, and the others use what is left of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from mailing import new_mailing
from mailing.v1.message_pb2 import Message
from tests.e2e.conftest import Endpoint
from tests.faults.conftest import StartService
from tests.faults.mailings import add_clients
from tests.support.eventually import eventually

COUNT, QUOTA = 9000, 6000
RATE = 1500
"""Messages a second: the quota is not used up before a test looks."""

MOST_HELD = 1000
"""Permits that a replica holds at the most: what it held is lost for the day when it is killed."""

SHORT = {"MAILING_LEASE": "4", "MAILING_ENDPOINT_TIMEOUT": "0.5"}
USED = "SELECT coalesce(sum(used), 0)::int FROM day_quotas"
HELD = "SELECT count(*) FROM batches WHERE lease_until > now()"


def zone_at_noon() -> str:
    """Return a time zone in which no day begins while a test runs."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


@pytest.mark.parametrize("whose", ["mailing", "endpoint"])
async def test_a_quota_outlives_a_replica_that_is_killed_in_the_middle(
    start_service: StartService, endpoint: Endpoint, pool: asyncpg.Pool, whose: str
) -> None:
    """Fails when permits are given out beyond the quota."""
    zone, of_mailing = zone_at_noon(), whose == "mailing"
    settings = SHORT | (
        {}
        if of_mailing
        else {"MAILING_ENDPOINT_MAX_PER_DAY": f"{QUOTA}", "MAILING_ENDPOINT_MAX_PER_DAY_TIMEZONE": zone}
    )
    first, second = start_service(**settings), start_service(**settings)
    await asyncio.to_thread(add_clients, first.client, COUNT)
    limit: dict[str, Any] = {"max_per_day": QUOTA, "max_per_day_timezone": zone} if of_mailing else {}
    mailing = await asyncio.to_thread(
        second.client.create_mailing, new_mailing("Hello", snapshot=True, max_rate=RATE, **limit)
    )
    await eventually(lambda: len(endpoint.received()), lambda count: count > QUOTA // 4, within=60.0)
    first.kill()
    assert len(endpoint.received()) < QUOTA
    third = start_service(**settings)

    async def is_at_rest() -> bool:
        return await pool.fetchval(USED) == QUOTA and not await pool.fetchval(HELD)

    await eventually(is_at_rest, within=60.0)
    received = [one["id"] for one in endpoint.received()]
    assert QUOTA - MOST_HELD <= len(received) <= QUOTA
    messages = await asyncio.to_thread(list, third.client.list_messages(mailing_id=mailing.id))
    pending = {one.id for one in messages if one.status == Message.STATUS_PENDING}
    assert (len(messages), len(pending | set(received))) == (COUNT, COUNT)


async def test_what_a_replica_stopped_in_order_held_is_used_by_the_next(
    start_service: StartService, endpoint: Endpoint, pool: asyncpg.Pool
) -> None:
    first = start_service()
    await asyncio.to_thread(add_clients, first.client, COUNT)
    limit: dict[str, Any] = {"max_per_day": QUOTA, "max_per_day_timezone": zone_at_noon()}
    await asyncio.to_thread(first.client.create_mailing, new_mailing("Hello", snapshot=True, max_rate=RATE, **limit))
    await eventually(lambda: len(endpoint.received()), lambda count: count > QUOTA // 4, within=60.0)
    assert await asyncio.to_thread(first.stop) == 0
    assert await pool.fetchval(USED) == len(endpoint.received()) < QUOTA
    start_service()
    await eventually(lambda: len(endpoint.received()), lambda count: count >= QUOTA, within=60.0)
    await eventually(lambda: pool.fetchval(HELD), lambda held: held == 0)
    assert len(endpoint.received()) == QUOTA
