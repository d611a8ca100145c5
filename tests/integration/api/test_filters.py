"""Filters of every kind over the API: as a message and as text, wherever a filter is taken."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.client_service_pb2 import ExportClientsRequest, ListClientsRequest
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest
from mailing.v1.message_pb2 import Message
from mailing.v1.segment_service_pb2 import PreviewSegmentRequest
from tests.integration.api.calls import add_client, mailing, refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import create, get, update

Op = ClientFilter.AttributeCondition.Op
Got = ClientFilter.MailingCondition
NEW_YEAR = Timestamp(seconds=int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))
EVERYTHING = ClientFilter(
    tags=["vip"],
    operator_codes=["926"],
    timezones=["Europe/Moscow"],
    attributes={"city": "Moscow"},
    client_ids=[7],
    attribute_conditions=[
        ClientFilter.AttributeCondition(name="age", op=Op.OP_GREATER_OR_EQUAL, values=["30"]),
        ClientFilter.AttributeCondition(name="left", op=Op.OP_MISSING),
    ],
    any_of=[ClientFilter(), ClientFilter(tags=["x"], none_of=[ClientFilter(phone_prefixes=["44"])])],
    none_of=[ClientFilter(operator_codes=["903"])],
    phone_prefixes=["7926", "7903"],
    created_since=NEW_YEAR,
    exclude_mailings=[Got(mailing_id=9)],
    only_mailings=[Got(mailing_id=8, statuses=[Message.Status.STATUS_FAILED])],
    sample=ClientFilter.Sample(size=100, seed=-3),
)


async def ids(service: Service, **request: Any) -> list[int]:
    return [client.id for client in (await service.clients.ListClients(ListClientsRequest(**request))).clients]


async def test_a_filter_comes_back_as_it_was_sent(service: Service) -> None:
    made = await create(service, filter=EVERYTHING)
    assert made.filter == EVERYTHING == (await get(service, made.id)).filter


async def test_a_text_chooses_the_same_clients_everywhere(service: Service) -> None:
    young = await add_client(service, 79261000000, tag="vip", attributes={"age": "29"})
    old = await add_client(service, 79261000001, tag="vip", attributes={"age": "30.5"})
    await add_client(service, 79261000002, attributes={"age": "40"})
    text = 'tag = "vip" AND attributes.age >= 30 AND NOT got(17)'
    assert await ids(service, filter_text=text) == [old.id]
    piece: Any = await service.clients.ExportClients(ExportClientsRequest(filter_text=text)).read()
    assert [client.id for client in piece.clients] == [old.id]
    made = await create(service, filter_text=text)
    assert made.filter_text == ""
    assert made.filter.attribute_conditions[0].values == ["30"]
    preview = await service.mailings.PreviewMailing(PreviewMailingRequest(mailing=mailing(filter_text=text)))
    assert preview.audience_size == 1
    changed = await update(service, Mailing(id=made.id, filter_text=f"id = {young.id}"), "filter_text")
    assert changed.filter == ClientFilter(client_ids=[young.id])
    changed = await update(service, Mailing(id=made.id, filter_text="tag = vip"))
    assert changed.filter == ClientFilter(tags=["vip"])


async def test_a_page_of_a_sample_goes_on_with_the_same_sample(service: Service) -> None:
    everybody = [(await add_client(service, 79261000000 + n)).id for n in range(30)]
    sample = ClientFilter(sample=ClientFilter.Sample(size=7, seed=5))
    first = await service.clients.ListClients(ListClientsRequest(filter=sample, page_size=4))
    rest = await service.clients.ListClients(
        ListClientsRequest(filter=sample, page_size=4, page_token=first.next_page_token)
    )
    found = [client.id for client in [*first.clients, *rest.clients]]
    assert len(set(found)) == 7
    assert set(found) < set(everybody)
    assert await ids(service, filter_text="sample(7, 5)") == found
    piece: Any = await service.clients.ExportClients(ExportClientsRequest(filter=sample)).read()
    assert [client.id for client in piece.clients] == found
    preview = await service.segments.PreviewSegment(PreviewSegmentRequest(filter=sample))
    assert (preview.size, preview.filter_text) == (7, "sample(7, 5)")


@pytest.mark.parametrize("field", ["filter_text", "filter"])
async def test_a_text_beside_a_filter_is_refused(service: Service, field: str) -> None:
    both: dict[str, Any] = {"filter": ClientFilter(tags=["a"]), "filter_text": "tag = a"}
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "filter_text"):
        await ids(service, **both)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.filter_text"):
        await create(service, **both)
    made = await create(service)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.filter_text"):
        await update(service, Mailing(id=made.id, **both), field)


async def test_a_text_that_cannot_be_read_is_refused_with_its_place(service: Service, pool: asyncpg.Pool) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FILTER", "filter_text") as info:
        await ids(service, filter_text="tag == a")
    assert info.metadata == {"position": "5"}
    with refused("INVALID_ARGUMENT", "INVALID_FILTER", "mailing.filter_text"):
        await create(service, filter_text="colour = red")
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 0


@pytest.mark.parametrize(
    ("chosen", "path"),
    [
        (ClientFilter(sample=ClientFilter.Sample()), "sample.size"),
        (ClientFilter(any_of=[ClientFilter(created_since=Timestamp(seconds=1 << 60))]), "any_of[0].created_since"),
        (
            ClientFilter(attribute_conditions=[ClientFilter.AttributeCondition(name="a", op=Op.ValueType(77))]),
            "attribute_conditions[0].op",
        ),
        (
            ClientFilter(only_mailings=[Got(mailing_id=1, statuses=[Message.Status.ValueType(99)])]),
            "only_mailings[0].statuses[0]",
        ),
    ],
)  # fmt: skip
async def test_a_bad_filter_is_refused_wherever_it_is_taken(service: Service, chosen: ClientFilter, path: str) -> None:
    def bad(where: str) -> Any:
        return refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths(where))

    def paths(where: str) -> list[str]:
        values = [f"{where}.attribute_conditions[0].values"] if path.endswith("op") else []
        return [f"{where}.{path}", *values]

    with bad("filter"):
        await ids(service, filter=chosen)
    with bad("filter"):
        await service.clients.ExportClients(ExportClientsRequest(filter=chosen)).read()
    with bad("filter"):
        await service.segments.PreviewSegment(PreviewSegmentRequest(filter=chosen))
    with bad("mailing.filter"):
        await create(service, filter=chosen)
    with bad("mailing.filter"):
        await service.mailings.PreviewMailing(PreviewMailingRequest(mailing=mailing(filter=chosen)))
    made = await create(service)
    with bad("mailing.filter"):
        await update(service, Mailing(id=made.id, filter=chosen), "filter")


async def test_a_mailing_does_not_ask_for_messages_of_its_own(service: Service) -> None:
    made = await create(service)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.filter"):
        await update(service, Mailing(id=made.id, filter_text=f"NOT got({made.id})"), "filter_text")
