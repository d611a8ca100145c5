"""Fields that are not served yet are refused by name; nothing of such a request is done."""

from __future__ import annotations

import asyncpg
from google.protobuf.duration_pb2 import Duration

from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.client_service_pb2 import ExportClientsRequest, ListClientsRequest
from mailing.v1.mailing_service_pb2 import CreateMailingRequest
from tests.integration.api.calls import mailing, refused
from tests.integration.api.conftest import Service


async def test_a_mailing_with_an_unserved_field_is_not_made(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when the interceptor is left out: the mailing would go to everybody, at any time."""
    wanted = mailing(filter=ClientFilter(segment="gold"), skip_after=Duration(seconds=60))
    with refused("UNIMPLEMENTED", "NOT_SERVED_YET", "mailing.filter.segment", "mailing.skip_after"):
        await service.mailings.CreateMailing(CreateMailingRequest(mailing=wanted))
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 0


async def test_streams_refuse_unserved_fields_as_well(service: Service) -> None:
    with refused("UNIMPLEMENTED", "NOT_SERVED_YET", "filter_text"):
        await service.clients.ExportClients(ExportClientsRequest(filter_text="tag = 'x'")).read()


async def test_an_unserved_field_with_its_default_is_no_field(service: Service) -> None:
    await service.clients.ListClients(ListClientsRequest(filter_text="", filter=ClientFilter(any_of=[], segment="")))
