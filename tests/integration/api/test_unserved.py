"""Fields that are not served yet are refused by name; nothing of such a request is done."""

from __future__ import annotations

import asyncpg

from mailing.v1.mailing_service_pb2 import CreateMailingRequest
from tests.integration.api.calls import mailing, refused
from tests.integration.api.conftest import Service


async def test_a_mailing_with_an_unserved_field_is_not_made(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when the interceptor is left out: the mailing would go to everybody, at any time."""
    with refused("UNIMPLEMENTED", "NOT_SERVED_YET", "mailing.max_per_day"):
        await service.mailings.CreateMailing(CreateMailingRequest(mailing=mailing(max_per_day=5)))
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 0


async def test_an_unserved_field_with_its_default_is_no_field(service: Service) -> None:
    await service.mailings.CreateMailing(CreateMailingRequest(mailing=mailing(max_per_day=0)))
