"""What an import or an update does not mention stays; an opt-out is taken back only when that is written out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from dispatcher.model.states import AudienceMode
from mailing.v1 import client_pb2
from mailing.v1.client_service_pb2 import (
    DeleteClientRequest,
    ImportClientsRequest,
    ListClientsRequest,
    UpdateClientRequest,
)
from server.storage.database import Database
from server.storage.phone_memory import forget_old
from tests.integration.api.calls import add_client, client, imported, refused, window
from tests.integration.api.conftest import Service
from tests.integration.api.rows import add_batch, add_mailing
from tests.support.locks import blocked, holding

PHONE = 79160000010


async def masked(service: Service, paths: Sequence[str], *clients: client_pb2.Client) -> tuple[int, int, int]:
    async def requests() -> AsyncIterator[ImportClientsRequest]:
        yield ImportClientsRequest(clients=clients, update_mask=FieldMask(paths=paths))

    answer = await service.clients.ImportClients(requests())
    return answer.created, answer.updated, answer.unchanged


async def stored(service: Service) -> list[client_pb2.Client]:
    return list((await service.clients.ListClients(ListClientsRequest())).clients)


async def opted(pool: asyncpg.Pool) -> list[tuple[str, str]]:
    rows = await pool.fetch("SELECT event, details->>'source' AS source FROM log WHERE event LIKE 'client.opted%'")
    return [(row["event"], row["source"]) for row in rows]


def rich(**fields: Any) -> client_pb2.Client:
    return client(
        PHONE, tag="vip", attributes={"city": "Omsk", "name": "Anna"}, receive_window=window(), opted_out=True, **fields
    )


@pytest.mark.parametrize("paths", [(), ("phone", "timezone")])
async def test_an_import_leaves_what_it_does_not_mention(service: Service, paths: Sequence[str]) -> None:
    await imported(service, [rich()])
    before = await stored(service)
    assert await masked(service, paths, client(PHONE)) == (0, 0, 1)
    assert await stored(service) == before
    assert await masked(service, paths, client(PHONE, "Asia/Omsk")) == (0, 1, 0)
    (after,) = await stored(service)
    assert (after.timezone, after.tag, dict(after.attributes)) == ("Asia/Omsk", "vip", {"city": "Omsk", "name": "Anna"})
    assert after.opted_out
    assert after.HasField("receive_window")


async def test_a_mask_clears_what_a_row_leaves_empty(service: Service) -> None:
    await imported(service, [rich(operator_code="999")])
    await masked(service, ["tag", "receive_window", "operator_code", "opted_out"], client_pb2.Client(phone=str(PHONE)))
    (after,) = await stored(service)
    assert (after.tag, after.operator_code, after.HasField("receive_window")) == ("", "916", False)
    assert (after.opted_out, after.timezone) == (True, "Europe/Moscow")


async def test_a_mask_of_attribute_names_leaves_the_other_attributes(service: Service) -> None:
    await imported(service, [rich()])
    await masked(service, ["attributes.city", "attributes.age"], client(PHONE, attributes={"age": "7", "name": "Bo"}))
    assert [dict(one.attributes) for one in await stored(service)] == [{"age": "7", "name": "Anna"}]
    await masked(service, ["attributes"], client(PHONE, attributes={"shoe": "43"}))
    assert [dict(one.attributes) for one in await stored(service)] == [{"shoe": "43"}]


async def test_attributes_of_many_imports_do_not_pile_up_beyond_the_limit(service: Service) -> None:
    first, second = ({f"{letter}{n}": "" for n in range(40)} for letter in "ab")
    await imported(service, [client(PHONE, attributes=first)])
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "clients[0].attributes"):
        await masked(service, [f"attributes.{name}" for name in second], client(PHONE, attributes=second))


async def test_a_star_speaks_of_everything_but_an_opt_out(service: Service) -> None:
    await imported(service, [rich()])
    await masked(service, ["*"], client(PHONE, "UTC"))
    (after,) = await stored(service)
    assert (after.tag, dict(after.attributes), after.timezone, after.opted_out) == ("", {}, "UTC", True)


async def test_a_known_phone_needs_no_zone_and_a_new_one_does(service: Service) -> None:
    await add_client(service, PHONE)
    silent = client_pb2.Client(phone=str(PHONE), tag="new")
    assert await imported(service, [silent]) == (0, 1, 0)
    stranger = client_pb2.Client(phone=str(PHONE + 1), tag="new")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "clients[1].timezone"):
        await imported(service, [silent, stranger])
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "clients[0].timezone"):
        await masked(service, ["timezone"], silent)


async def test_a_new_phone_takes_the_whole_row_whatever_the_mask(service: Service) -> None:
    assert await masked(service, ["opted_out"], client(PHONE, tag="vip", attributes={"city": "Omsk"})) == (1, 0, 0)
    (made,) = await stored(service)
    assert (made.tag, dict(made.attributes), made.operator_code) == ("vip", {"city": "Omsk"}, "916")


async def test_a_mask_that_names_no_field_or_changes_on_the_way_is_refused(service: Service) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "update_mask", "update_mask"):
        await masked(service, ["colour", "attributes.a b"], client(PHONE))

    async def changing() -> AsyncIterator[ImportClientsRequest]:
        yield ImportClientsRequest(clients=[client(PHONE)], update_mask=FieldMask(paths=["tag"]))
        yield ImportClientsRequest(clients=[client(PHONE + 1)])
        yield ImportClientsRequest(clients=[client(PHONE + 2)], update_mask=FieldMask(paths=["timezone"]))

    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"):
        await service.clients.ImportClients(changing())
    assert await stored(service) == []


async def test_an_opt_out_is_undone_only_when_written_out_and_is_logged(service: Service, pool: asyncpg.Pool) -> None:
    await imported(service, [rich()])
    await masked(service, ["opted_out"], client(PHONE))
    assert (await stored(service))[0].opted_out
    await masked(service, ["tag"], client(PHONE, opted_out=False))
    assert not (await stored(service))[0].opted_out
    assert await opted(pool) == [("client.opted_out", "import"), ("client.opted_in", "import")]
    assert await pool.fetchval("SELECT count(DISTINCT principal) FROM log") == 1


async def test_an_earlier_row_that_opts_out_counts_behind_a_silent_one(service: Service) -> None:
    assert await imported(service, [client(PHONE, opted_out=True), client(PHONE, tag="last")]) == (1, 1, 0)
    assert [(one.tag, one.opted_out) for one in await stored(service)] == [("last", True)]


async def test_an_opt_out_during_an_import_is_not_overwritten(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service, PHONE)
    async with holding(pool, f"UPDATE clients SET opted_out = true WHERE id = {made.id}"):
        merging = asyncio.create_task(imported(service, [client(PHONE, tag="imported")]))
        await blocked(pool)
    assert await merging == (0, 1, 0)
    assert [(one.tag, one.opted_out) for one in await stored(service)] == [("imported", True)]


async def delete(service: Service, one: client_pb2.Client) -> None:
    await service.clients.DeleteClient(DeleteClientRequest(client_id=one.id))


@pytest.mark.parametrize("way", ["create", "import", "move"])
async def test_a_phone_that_comes_back_is_still_opted_out(service: Service, pool: asyncpg.Pool, way: str) -> None:
    await delete(service, await add_client(service, PHONE, opted_out=True))
    if way == "create":
        await add_client(service, PHONE)
    elif way == "import":
        await imported(service, [client(PHONE), client(PHONE + 1)])
    else:
        moved = await add_client(service, PHONE + 2)
        await service.clients.UpdateClient(UpdateClientRequest(client=client_pb2.Client(id=moved.id, phone=str(PHONE))))
    assert [one.opted_out for one in await stored(service) if one.phone == str(PHONE)] == [True]
    assert (await opted(pool))[1:] == [("client.opted_out", "phone_memory")]
    assert await pool.fetchval("SELECT count(*) FROM phone_memories") == 0


@pytest.mark.parametrize("imports", [False, True])
async def test_a_phone_that_comes_back_may_opt_in_in_so_many_words(
    service: Service, pool: asyncpg.Pool, imports: bool
) -> None:
    await delete(service, await add_client(service, PHONE, opted_out=True))
    if imports:
        await imported(service, [client(PHONE, opted_out=False)])
    else:
        await add_client(service, PHONE, opted_out=False)
    assert not (await stored(service))[0].opted_out
    assert (await opted(pool))[1:] == [("client.opted_in", "import" if imports else "api")]


async def test_a_phone_keeps_its_opt_out_when_its_client_moves_away(service: Service) -> None:
    made = await add_client(service, PHONE, opted_out=True)
    await service.clients.UpdateClient(UpdateClientRequest(client=client_pb2.Client(id=made.id, phone=str(PHONE + 1))))
    await add_client(service, PHONE)
    assert [one.opted_out for one in await stored(service)] == [True, True]


async def test_what_is_remembered_is_no_phone_and_is_forgotten_in_time(service: Service, pool: asyncpg.Pool) -> None:
    await delete(service, await add_client(service, PHONE, opted_out=True))
    await delete(service, await add_client(service, PHONE + 1))
    (memory,) = await pool.fetch("SELECT * FROM phone_memories")
    assert str(PHONE) not in str(dict(memory))
    assert len(memory["digest"]) == 32
    await forget_old(Database(pool), timedelta(days=1))
    assert await pool.fetchval("SELECT count(*) FROM phone_memories") == 1
    await forget_old(Database(pool), timedelta())
    assert await pool.fetchval("SELECT count(*) FROM phone_memories") == 0


async def test_only_open_mailings_that_may_have_arrived_are_remembered(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service, PHONE)
    unsent, leased, snapshot = [await add_mailing(pool) for _ in range(3)]
    await pool.execute("UPDATE mailings SET audience_mode = $1 WHERE id = $2", AudienceMode.SNAPSHOT, snapshot)
    await add_batch(pool, unsent, [made.id])
    await add_batch(pool, leased, [made.id], lease=60)
    await add_batch(pool, snapshot, [made.id], lease=60)
    await delete(service, made)
    assert await pool.fetchval("SELECT received FROM phone_memories") == [leased]
    again = await add_client(service, PHONE)
    assert await pool.fetchval("SELECT received FROM clients") == [leased]
    await delete(service, again)
    assert await pool.fetchval("SELECT received FROM phone_memories") == [leased]


async def test_an_update_of_another_field_keeps_the_operator_code(service: Service) -> None:
    made = await add_client(service, 79160000001)
    assert made.operator_code == "916"
    change = UpdateClientRequest(client=client_pb2.Client(id=made.id, tag="vip"))
    assert (await service.clients.UpdateClient(change)).client.operator_code == "916"


async def test_a_client_tells_when_and_how_they_opted_out(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when another write changes the origin, and when one that was taken back stays."""
    Source = client_pb2.OptOut.Source
    made = await add_client(service, PHONE, opted_out=True)
    assert (made.opt_out.source, made.opt_out.time) == (Source.SOURCE_API, made.create_time)
    await imported(service, [client(PHONE, tag="x", opted_out=True), client(PHONE + 1, opted_out=True)])
    first, second = await by_phone(service)
    assert (first.opt_out, second.opt_out.source) == (made.opt_out, Source.SOURCE_IMPORT)
    assert second.opt_out.time == second.create_time
    await imported(service, [client(PHONE, opted_out=False), client(PHONE + 2)])
    assert not any(one.HasField("opt_out") for one in await by_phone(service) if one.phone != str(PHONE + 1))
    await imported(service, [client(PHONE, opted_out=True)])
    update = UpdateClientRequest(client=client_pb2.Client(id=made.id, opted_out=True, tag="y"))
    again = (await service.clients.UpdateClient(update)).client
    assert (again.tag, again.opt_out.source) == ("y", Source.SOURCE_IMPORT)


async def test_an_opt_out_that_the_phone_kept_has_no_origin(service: Service) -> None:
    made = await add_client(service, PHONE, opted_out=True)
    await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id))
    again = await add_client(service, PHONE)
    assert again.opted_out
    assert again.opt_out == client_pb2.OptOut()
    assert again.HasField("opt_out")


async def by_phone(service: Service) -> list[client_pb2.Client]:
    return sorted(await stored(service), key=lambda one: one.phone)
