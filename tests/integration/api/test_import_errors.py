"""Every bad row of an import is counted; what is returned and what is stored follows the options."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from mailing.v1 import client_pb2
from mailing.v1.client_service_pb2 import ImportClientsRequest, ImportClientsResponse, ListClientsRequest
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest
from tests.integration.api.calls import client, imported, mailing, refused
from tests.integration.api.conftest import Service

PHONE = 79160000000


def table(count: int) -> list[client_pb2.Client]:
    """Return rows of which every third one has a zone that does not exist."""
    return [client(PHONE + n, "Moscow" if n % 3 == 0 else "Europe/Moscow") for n in range(count)]


async def done(service: Service, rows: Sequence[client_pb2.Client], **options: Any) -> ImportClientsResponse:
    async def requests() -> AsyncIterator[ImportClientsRequest]:
        for start in range(0, len(rows), 500):
            yield ImportClientsRequest(clients=rows[start : start + 500], **(options if start == 0 else {}))

    return await service.clients.ImportClients(requests())


async def test_a_refused_import_counts_the_bad_rows_of_all_its_messages(service: Service) -> None:
    paths = [f"clients[{n}].timezone" for n in range(0, 6000, 3)]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths[:29]) as info:
        await done(service, table(6000))
    assert dict(info.metadata) == {"bad_rows": "2000"}
    assert not (await service.clients.ListClients(ListClientsRequest())).clients


async def test_a_validated_import_returns_the_first_bad_rows_and_stores_nothing(
    service: Service, pool: asyncpg.Pool
) -> None:
    await imported(service, [client(PHONE + 1)])
    answer = await done(service, table(6000), validate_only=True)
    assert (answer.created, answer.updated, answer.unchanged, answer.skipped) == (3999, 0, 1, 2000)
    assert [one.row for one in answer.errors] == list(range(0, 3000, 3))
    assert {one.field for one in answer.errors} == {"timezone"}
    assert await pool.fetchval("SELECT count(*) FROM clients") == 1
    assert await pool.fetchval("SELECT count(*) FROM log WHERE event = 'clients.imported'") == 1


async def test_an_import_that_skips_stores_the_good_rows(service: Service) -> None:
    stranger = client_pb2.Client(phone=str(PHONE + 99), tag="no zone")
    answer = await done(service, [*table(9), stranger, client(PHONE + 1, tag="twice")], skip_invalid=True)
    assert (answer.created, answer.updated, answer.skipped) == (6, 1, 4)
    assert [(one.row, one.field) for one in answer.errors] == [*((n, "timezone") for n in (0, 3, 6)), (9, "timezone")]
    stored = (await service.clients.ListClients(ListClientsRequest())).clients
    assert {one.phone for one in stored} == {str(PHONE + n) for n in (1, 2, 4, 5, 7, 8)}


async def test_long_sentences_leave_room_in_the_answer(service: Service) -> None:
    rows = [client(PHONE + n, attributes={f"{'x' * 63}{m}": "\0" for m in range(9)}) for n in range(600)]
    answer = await done(service, rows, validate_only=True)
    assert answer.skipped == 600
    assert len(answer.errors) == 1000
    assert answer.ByteSize() < 1 << 20


async def test_tags_that_look_alike_are_one(service: Service) -> None:
    tags = ["news", "news ", "\u00a0news", "cafe\u0301", "caf\u00e9"]
    await imported(service, [client(PHONE + n, tag=tag) for n, tag in enumerate(tags)])

    async def found(tag: str) -> int:
        chosen = client_pb2.ClientFilter(tags=[tag])
        return len((await service.clients.ListClients(ListClientsRequest(filter=chosen))).clients)

    assert [await found(tag) for tag in tags] == [3, 3, 3, 2, 2]


async def test_a_filter_finds_clients_under_every_name_of_a_zone(service: Service) -> None:
    zones = ["Europe/Kiev", "Europe/Kyiv", "Asia/Calcutta", "Europe/Amsterdam", "Europe/Brussels"]
    await imported(service, [client(PHONE + n, zone) for n, zone in enumerate(zones)])
    for zone, count in (("Europe/Kiev", 2), ("Europe/Kyiv", 2), ("Asia/Kolkata", 1), ("Europe/Brussels", 1)):
        chosen = client_pb2.ClientFilter(timezones=[zone])
        assert len((await service.clients.ListClients(ListClientsRequest(filter=chosen))).clients) == count
        preview = PreviewMailingRequest(mailing=mailing(filter=chosen))
        assert (await service.mailings.PreviewMailing(preview)).audience_size == count
