"""Imports are all or nothing, whatever ends them; exports give everything back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from zlib import crc32

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from mailing.v1 import client_pb2
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    ExportClientsRequest,
    GetClientRequest,
    ImportClientsRequest,
    ListClientsRequest,
    UpdateClientRequest,
)
from tests.integration.api.calls import add_client, client, imported, refused, requests, window
from tests.integration.api.conftest import Service
from tests.support.locks import blocked

PHONE = 79260000000


async def exported(service: Service, chosen: client_pb2.ClientFilter | None = None) -> list[client_pb2.Client]:
    return [
        one
        async for piece in service.clients.ExportClients(ExportClientsRequest(filter=chosen))
        for one in piece.clients
    ]


async def test_new_changed_and_unchanged_clients_are_counted(service: Service) -> None:
    first = [client(PHONE + n, tag="a", receive_window=window()) for n in range(10)]
    assert await imported(service, first[:4], first[4:]) == (10, 0, 0)
    before = await exported(service)
    second = [
        *first[:5],
        client(PHONE + 5, tag="b", receive_window=window()),
        client(PHONE + 6, tag="c"),
        client(PHONE + 99),
    ]
    assert await imported(service, second) == (1, 2, 5)
    after = {one.phone: one for one in await exported(service)}
    for one in before:
        same = one.phone not in (str(PHONE + 5), str(PHONE + 6))
        assert (after[one.phone] == one) is same
        assert after[one.phone].id == one.id


async def test_imported_clients_are_like_created_ones(service: Service) -> None:
    rich = client(
        PHONE,
        tag="tab\t\\N 'x'",
        attributes={"name": 'Anna "\\" \t\n', "имя": "Анна"},
        receive_window=window(22, 8 * 3600),
    )
    plain = client("4917012345678", "Europe/Berlin", operator_code="170", opted_out=True)
    assert await imported(service, [rich, plain]) == (2, 0, 0)
    for sent in (rich, plain):
        chosen = client_pb2.ClientFilter(tags=[sent.tag])
        (stored,) = (await service.clients.ListClients(ListClientsRequest(filter=chosen))).clients
        for name in ("phone", "tag", "timezone", "attributes", "receive_window", "opted_out"):
            assert getattr(stored, name) == getattr(sent, name)
        assert stored.operator_code == (sent.operator_code or "926")
        with refused("ALREADY_EXISTS", "PHONE_TAKEN"):
            await add_client(service, sent.phone)


async def test_the_last_row_of_a_phone_wins(service: Service) -> None:
    rows = [client(PHONE, tag="first"), client(PHONE + 1), client(PHONE, tag="second"), client(PHONE, tag="third")]
    assert await imported(service, rows[:2], rows[2:]) == (2, 2, 0)
    assert {one.tag for one in await exported(service)} == {"third", ""}


async def test_an_import_spans_many_chunks(service: Service, pool: asyncpg.Pool) -> None:
    rows = [client(PHONE + n, attributes={"n": str(n)}) for n in range(12_000)]
    pieces = [rows[n : n + 500] for n in range(0, len(rows), 500)]
    assert await imported(service, *pieces) == (12_000, 0, 0)
    assert await imported(service, *pieces) == (0, 0, 12_000)
    assert [(one.phone, one.attributes["n"]) for one in sorted(await exported(service), key=lambda one: one.phone)] == [
        (row.phone, row.attributes["n"]) for row in rows
    ]
    changes = await pool.fetch("SELECT bucket, client_ids FROM client_changes ORDER BY bucket")
    assert [row["bucket"] for row in changes] == list(range(16))
    assert sum(len(row["client_ids"]) for row in changes) == 12_000
    assert all(identity % 16 == row["bucket"] for row in changes for identity in row["client_ids"])


async def test_a_client_whose_phone_was_changed_keeps_its_bucket_in_an_import(
    service: Service, pool: asyncpg.Pool
) -> None:
    made = [await add_client(service, PHONE + n) for n in range(4)]
    for n, one in enumerate(made):
        changed = client_pb2.Client(id=one.id, phone=str(PHONE + 100 + n))
        request = UpdateClientRequest(client=changed, update_mask=FieldMask(paths=["phone"]))
        await service.clients.UpdateClient(request)
    assert await imported(service, [client(PHONE + 100 + n, tag="new") for n in range(4)]) == (0, 4, 0)
    for one in made:
        stored = (await service.clients.GetClient(GetClientRequest(client_id=one.id))).client
        assert stored.tag == "new"
    newest = await pool.fetch(
        "SELECT bucket, client_ids FROM client_changes WHERE at = (SELECT max(at) FROM client_changes)"
    )
    assert all(identity % 16 == row["bucket"] for row in newest for identity in row["client_ids"])


async def test_an_empty_import_does_nothing(service: Service) -> None:
    assert await imported(service) == (0, 0, 0)
    assert await imported(service, []) == (0, 0, 0)


async def test_an_invalid_row_is_named_by_its_position_and_nothing_is_stored(service: Service) -> None:
    good = [client(PHONE + n) for n in range(6000)]
    bad = [client(PHONE + 7000), client("+7926", "Mars/Olympus"), client(PHONE + 7001, tag="\0")]
    paths = ("clients[6001].phone", "clients[6001].timezone", "clients[6002].tag")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths):
        await imported(service, good[:3000], good[3000:], bad)
    assert await exported(service) == []


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (client(PHONE, tag="x" * 101), "tag"),
        (client(PHONE, tag="\0"), "tag"),
        (client(PHONE, operator_code="1"), "operator_code"),
        (client(PHONE, timezone="Factory"), "timezone"),
        (client(PHONE, receive_window=window(9, 86401)), "receive_window.duration"),
        (client(PHONE, receive_window=window(24)), "receive_window.start"),
        (client(PHONE, attributes={"a": "x" * 1001}), "attributes.a"),
        (client(PHONE, attributes={"a": "\0"}), "attributes.a"),
        (client(PHONE, attributes={"a b": ""}), "attributes"),
        (client(PHONE, attributes={f"a{n}": "" for n in range(65)}), "attributes"),
    ],
)
async def test_the_fast_way_of_rows_has_the_rules_of_the_long_one(
    service: Service, bad: client_pb2.Client, path: str
) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"clients[1].{path}"):
        await imported(service, [client(PHONE + 1), bad])


@pytest.mark.parametrize("staged", [10, 6000])
async def test_a_cancelled_import_stores_nothing(service: Service, pool: asyncpg.Pool, staged: int) -> None:
    for turn in range(10):
        sent = asyncio.Event()

        async def endless(sent: asyncio.Event = sent, turn: int = turn) -> AsyncIterator[ImportClientsRequest]:
            for start in range(0, staged, 500):
                rows = [client(PHONE + turn * 10_000 + start + n) for n in range(min(500, staged - start))]
                yield ImportClientsRequest(clients=rows)
            sent.set()
            await asyncio.Event().wait()

        call = service.clients.ImportClients(endless())
        await sent.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    # An import that is accepted behind the cancelled ones shows that these hold nothing.
    assert await imported(service, [client(PHONE)]) == (1, 0, 0)
    assert await pool.fetchval("SELECT count(*) FROM clients") == 1


async def test_slow_imports_hold_no_connection(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when rows are staged, or a transaction is open, while the stream is read."""
    reading = asyncio.Semaphore(0)

    async def endless(number: int) -> AsyncIterator[ImportClientsRequest]:
        for start in range(0, 6000, 500):
            rows = [client(PHONE + number * 10_000 + start + n) for n in range(500)]
            yield ImportClientsRequest(clients=rows)
        reading.release()
        await asyncio.Event().wait()

    calls = [service.clients.ImportClients(endless(number)) for number in range(4)]
    for _ in calls:
        await reading.acquire()
    state = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    assert await pool.fetchval(state) == 0
    for call in calls:
        call.cancel()
    assert await imported(service, [client(PHONE)]) == (1, 0, 0)


async def test_an_import_and_a_create_of_the_same_phone_make_one_client(service: Service, pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO client_phones VALUES ($1, 3, 19)", str(PHONE))
        await connection.execute(
            "INSERT INTO clients (bucket, id, phone, timezone) VALUES (3, 19, $1, 'UTC')", str(PHONE)
        )
        merging = asyncio.create_task(imported(service, [client(PHONE, tag="imported"), client(PHONE + 1)]))
        await blocked(pool)
        await transaction.commit()
    assert await merging == (1, 1, 0)
    (one,) = (
        await service.clients.ListClients(ListClientsRequest(filter=client_pb2.ClientFilter(client_ids=[19])))
    ).clients
    assert (one.tag, one.timezone) == ("imported", "Europe/Moscow")


async def test_a_client_deleted_during_an_import_is_created_again(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service, PHONE)
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM clients WHERE bucket = $1 AND id = $2", made.id % 16, made.id)
        await connection.execute("DELETE FROM client_phones WHERE phone = $1", made.phone)
        merging = asyncio.create_task(imported(service, [client(PHONE, tag="imported")]))
        await blocked(pool)
        await transaction.commit()
    assert await merging == (1, 0, 0)
    (one,) = await exported(service)
    assert one.id != made.id


async def test_imports_and_creates_at_once_leave_every_phone_with_one_client(
    service: Service, pool: asyncpg.Pool
) -> None:
    phones = range(PHONE, PHONE + 300)

    async def create(phone: int) -> None:
        try:
            await add_client(service, phone, tag="created")
        except grpc.aio.AioRpcError as error:
            assert error.code().name == "ALREADY_EXISTS"  # noqa: PT017

    creates = [create(phone) for phone in phones[::3]]
    imports = [
        imported(service, [client(phone, tag=tag) for phone in order])
        for tag, order in (("up", phones), ("down", phones[::-1]))
    ]
    await asyncio.gather(*imports, *creates)
    assert await pool.fetchval("SELECT count(*) FROM clients") == 300
    stray = (
        "SELECT count(*) FROM client_phones p LEFT JOIN clients c"
        " ON c.bucket = p.bucket AND c.id = p.client_id AND c.phone = p.phone WHERE c.id IS NULL"
    )
    assert await pool.fetchval(stray) == 0


async def test_an_export_gives_every_client_once_in_the_order_of_ids(service: Service) -> None:
    await imported(service, [client(PHONE + n, tag="odd" if n % 2 else "even") for n in range(9_000)])
    everybody = await exported(service)
    assert len(everybody) == 9_000
    assert [one.id for one in everybody] == sorted({one.id for one in everybody})
    odd = await exported(service, client_pb2.ClientFilter(tags=["odd"]))
    assert odd == [one for one in everybody if one.tag == "odd"]
    few = await exported(service, client_pb2.ClientFilter(client_ids=[one.id for one in everybody[::3]]))
    assert few == everybody[::3]


@pytest.mark.parametrize("by_id", [False, True])
async def test_an_export_goes_on_where_it_was_left(service: Service, by_id: bool) -> None:
    await imported(service, [client(PHONE + n) for n in range(1200)])
    everybody = await exported(service)
    chosen = client_pb2.ClientFilter(client_ids=[one.id for one in everybody]) if by_id else None
    found, token = [], ""
    for _ in range(10):
        request = ExportClientsRequest(filter=chosen, resume_token=token)
        piece: Any = await service.clients.ExportClients(request).read()
        if piece is grpc.aio.EOF:
            break
        found += piece.clients
        token = piece.resume_token
    assert found == everybody
    other = ExportClientsRequest(filter=client_pb2.ClientFilter(tags=["x"]), resume_token=token)
    with refused("INVALID_ARGUMENT", "INVALID_RESUME_TOKEN"):
        await service.clients.ExportClients(other).read()


async def test_an_export_of_buckets_of_different_sizes_misses_nobody(service: Service) -> None:
    def of_bucket(bucket: int, count: int) -> list[client_pb2.Client]:
        phones = (str(phone) for phone in range(PHONE, PHONE + 100_000))
        return [client(phone) for phone in phones if crc32(phone.encode()) % 16 == bucket][:count]

    await imported(service, of_bucket(3, 600))
    await imported(service, of_bucket(5, 1))
    assert len({one.id for one in await exported(service)}) == 601


async def test_an_export_holds_no_connection_for_a_slow_reader(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when a piece is handed out with its connection: much more is exported than buffers between the two hold."""
    await imported(service, [client(PHONE + n) for n in range(9_000)])
    await pool.execute("UPDATE clients SET attributes = jsonb_build_object('a', repeat('x', 4000))")
    calls = []
    for _ in range(4):  # as many as one caller may have, who gets two of the connections for such reads
        calls.append(service.clients.ExportClients(ExportClientsRequest()))
        await calls[-1].read()
    assert (await service.clients.ListClients(ListClientsRequest(page_size=1))).clients
    for call in calls:
        call.cancel()


async def test_a_bad_filter_of_an_export_is_rejected(service: Service) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "filter.timezones[0]"):
        await exported(service, client_pb2.ClientFilter(timezones=["Nowhere"]))


async def test_a_message_above_the_limit_is_rejected_with_the_limit(service: Service) -> None:
    """Fails when gRPC refuses it by itself, without a reason."""
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE") as info:
        await service.clients.ImportClients(requests([client(PHONE + n, tag="x" * 100) for n in range(40_000)]))
    assert info.metadata["limit"] == str(4 << 20)
    large = client(PHONE, attributes={f"a{n}": "x" * 100_000 for n in range(64)})
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE") as info:
        await service.clients.CreateClient(CreateClientRequest(client=large))
    assert int(info.metadata["size"]) > 6_400_000
    assert await exported(service) == []


async def test_lists_and_exports_are_cut_by_bytes(service: Service) -> None:
    """Fails, by gRPC's own limit of 4 MiB in callers, when only clients are counted."""
    full = {f"a{n}": "é" * 1000 for n in range(64)}
    people = [client(PHONE + n, attributes=full) for n in range(100)]
    assert await imported(service, *(people[n : n + 20] for n in range(0, 100, 20))) == (100, 0, 0)
    sizes, phones = list[int](), set[str]()
    async for piece in service.clients.ExportClients(ExportClientsRequest()):
        sizes.append(piece.ByteSize())
        phones.update(one.phone for one in piece.clients)
    page = ListClientsRequest(page_size=1000)
    while True:
        answer = await service.clients.ListClients(page)
        sizes.append(answer.ByteSize())
        phones -= {one.phone for one in answer.clients}
        page.page_token = answer.next_page_token
        if not page.page_token:
            break
    assert max(sizes) <= 1 << 20
    assert len(sizes) < 40
    assert not phones
