"""ClientService on a real server and database: one client, and pages of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.v1 import client_pb2, time_of_day_pb2
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    DeleteClientRequest,
    GetClientRequest,
    ListClientsRequest,
    UpdateClientRequest,
)
from tests.integration.api.calls import add_client, client, imported, refused, window
from tests.integration.api.conftest import Service


async def update(service: Service, changed: client_pb2.Client, *paths: str) -> client_pb2.Client:
    request = UpdateClientRequest(client=changed, update_mask=FieldMask(paths=paths))
    return (await service.clients.UpdateClient(request)).client


async def test_a_client_comes_back_as_it_was_created(service: Service) -> None:
    asked = client(tag="gold", receive_window=window(22, 8 * 3600), attributes={"name": "Анна \\ \t\n"}, opted_out=True)
    made = (await service.clients.CreateClient(CreateClientRequest(client=asked))).client
    assert made.id > 0
    assert made.etag
    assert made.operator_code == "926"
    assert made.create_time == made.update_time
    for name in ("phone", "tag", "timezone", "receive_window", "attributes", "opted_out"):
        assert getattr(made, name) == getattr(asked, name)
    assert (await service.clients.GetClient(GetClientRequest(client_id=made.id))).client == made


async def test_the_id_of_a_client_names_the_bucket_of_its_phone(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service)
    row = await pool.fetchrow("SELECT bucket, client_id FROM client_phones WHERE phone = $1", made.phone)
    assert (row["client_id"], row["bucket"]) == (made.id, made.id % 16)


async def test_a_phone_belongs_to_one_client(service: Service) -> None:
    await add_client(service)
    with refused("ALREADY_EXISTS", "PHONE_TAKEN"):
        await add_client(service)


async def test_a_replay_returns_the_first_client_as_it_is_now(service: Service) -> None:
    request = CreateClientRequest(client=client(), request_id=str(uuid4()))
    made = (await service.clients.CreateClient(request)).client
    changed = await update(service, client_pb2.Client(id=made.id, tag="new"))
    assert (await service.clients.CreateClient(request)).client == changed
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await service.clients.CreateClient(
            CreateClientRequest(client=client(79990000000), request_id=request.request_id)
        )
    await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id))
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
        await service.clients.CreateClient(request)


async def test_a_request_id_of_a_rejected_call_may_be_used_again(service: Service) -> None:
    await add_client(service)
    request_id = str(uuid4())
    with refused("ALREADY_EXISTS", "PHONE_TAKEN"):
        await service.clients.CreateClient(CreateClientRequest(client=client(), request_id=request_id))
    request = CreateClientRequest(client=client(79990000000), request_id=request_id)
    assert (await service.clients.CreateClient(request)).client.id


async def test_simultaneous_identical_creates_make_one_client(service: Service, pool: asyncpg.Pool) -> None:
    request = CreateClientRequest(client=client(), request_id=str(uuid4()))
    answers = await asyncio.gather(*(service.clients.CreateClient(request) for _ in range(8)))
    assert len({answer.client.id for answer in answers}) == 1
    assert await pool.fetchval("SELECT count(*) FROM clients") == 1


async def test_an_update_without_a_mask_takes_the_populated_fields(service: Service) -> None:
    made = await add_client(service, tag="old", receive_window=window())
    changed = await update(service, client_pb2.Client(id=made.id, timezone="Asia/Omsk", etag=made.etag))
    assert (changed.timezone, changed.tag, changed.receive_window) == ("Asia/Omsk", "old", made.receive_window)
    assert changed.etag != made.etag
    assert changed.update_time.ToNanoseconds() > made.update_time.ToNanoseconds()
    assert changed.create_time == made.create_time


async def test_an_update_with_a_mask_takes_these_fields_also_when_empty(service: Service) -> None:
    made = await add_client(service, tag="old", receive_window=window(), attributes={"a": "1"}, opted_out=True)
    sent = client_pb2.Client(id=made.id, tag="ignored")
    changed = await update(service, sent, "receive_window", "attributes", "opted_out")
    assert not changed.HasField("receive_window")
    assert (changed.tag, dict(changed.attributes), changed.opted_out) == ("old", {}, False)


async def test_a_star_replaces_everything(service: Service) -> None:
    made = await add_client(service, tag="old", receive_window=window(), operator_code="999")
    changed = await update(service, client_pb2.Client(id=made.id, phone="79161234567", timezone="UTC"), "*")
    assert (changed.phone, changed.operator_code, changed.tag, changed.timezone) == ("79161234567", "916", "", "UTC")
    assert not changed.HasField("receive_window")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client.phone", "client.timezone"):
        await update(service, client_pb2.Client(id=made.id), "*")


async def test_a_changed_phone_frees_the_old_one_and_keeps_the_bucket(service: Service) -> None:
    made = await add_client(service, 79261234567)
    other = await add_client(service, 79261234568)
    with refused("ALREADY_EXISTS", "PHONE_TAKEN"):
        await update(service, client_pb2.Client(id=made.id, phone=other.phone))
    changed = await update(service, client_pb2.Client(id=made.id, phone="79161111111"))
    assert (changed.id, changed.operator_code) == (made.id, "916")
    assert (await add_client(service, 79261234567)).id != made.id


async def test_a_stale_etag_changes_nothing(service: Service) -> None:
    made = await add_client(service)
    current = await update(service, client_pb2.Client(id=made.id, tag="new", etag=made.etag))
    with refused("ABORTED", "STALE_ETAG"):
        await update(service, client_pb2.Client(id=made.id, tag="newer", etag=made.etag))
    with refused("ABORTED", "STALE_ETAG"):
        await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id, etag=made.etag))
    assert (await service.clients.GetClient(GetClientRequest(client_id=made.id))).client == current
    await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id, etag=current.etag))


@pytest.mark.parametrize("path", ["nobody", "receive_window.width", "receive_window.start.hours", "a.b", "attributes."])
async def test_a_mask_with_a_path_that_cannot_be_updated_is_rejected(service: Service, path: str) -> None:
    made = await add_client(service)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"):
        await update(service, client_pb2.Client(id=made.id, tag="x"), "tag", path)


async def test_a_mask_names_parts_of_fields(service: Service) -> None:
    """Fails when a part replaces the whole field, or asks for the other parts."""
    made = await add_client(service, attributes={"city": "Omsk", "age": "30"}, receive_window=window(9, 3600))
    patch = client_pb2.Client(id=made.id, attributes={"city": "Tomsk"}, receive_window=client_pb2.ReceiveWindow())
    patch.receive_window.start.hours = 11
    changed = await update(service, patch, "attributes.city", "attributes.age", "receive_window.start", "etag")
    assert dict(changed.attributes) == {"city": "Tomsk"}
    assert changed.receive_window == window(11, 3600)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client.attributes"):
        await update(service, client_pb2.Client(id=made.id, attributes={"a b": "x"}), "attributes.a b")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client.receive_window"):
        await update(service, client_pb2.Client(id=made.id), "receive_window.start")


async def test_parts_of_a_window_that_is_not_there_make_one_together(service: Service) -> None:
    made = await add_client(service)
    patch = client_pb2.Client(id=made.id, receive_window=window(9, 3600))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client.receive_window.duration"):
        await update(service, patch, "receive_window.start")
    changed = await update(service, patch, "receive_window.start", "receive_window.duration")
    assert changed.receive_window == window(9, 3600)


async def test_output_only_fields_of_a_write_are_ignored(service: Service) -> None:
    made = await add_client(service, id=7, etag="x", create_time=Timestamp(seconds=1))
    assert made.id != 7
    assert made.create_time.seconds > 1
    made.opt_out.word = "STOP"
    assert (await update(service, made)).create_time == made.create_time
    assert await imported(service, [made]) == (0, 0, 1)


async def test_a_mask_of_output_only_fields_changes_nothing(service: Service) -> None:
    made = await add_client(service, tag="old")
    changed = await update(service, client_pb2.Client(id=made.id, tag="new"), "etag", "create_time", "opt_out.word")
    assert changed.tag == "old"


async def test_a_client_who_did_not_opt_out_is_returned_without_the_field(service: Service) -> None:
    """Or it would be written back, and take back an opt-out that came in between."""
    made = await add_client(service, opted_out=False)
    assert not made.HasField("opted_out")
    assert (await update(service, client_pb2.Client(id=made.id, opted_out=True))).opted_out
    assert (await update(service, client_pb2.Client(id=made.id, tag="x"))).opted_out
    assert not (await update(service, client_pb2.Client(id=made.id, opted_out=False))).opted_out


async def test_every_bad_field_of_a_client_is_named(service: Service) -> None:
    bad = client("+7926", "Mars/Olympus", tag="x" * 101, operator_code="9x", attributes={"a b": "1"})
    bad.receive_window.start.hours = 24
    bad.receive_window.duration.seconds = 86401
    paths = ("receive_window.start", "phone", "operator_code", "tag", "timezone", "attributes")
    named = [f"client.{path}" for path in paths]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *named, "request_id"):
        await service.clients.CreateClient(CreateClientRequest(client=bad, request_id="not a uuid"))


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (window(9, 24 * 3600 + 1), "duration"),
        (window(9, 0), "duration"),
        (window(9, -5), "duration"),
        (window(9, 0.5), "duration"),
        (client_pb2.ReceiveWindow(start=time_of_day_pb2.TimeOfDay(hours=1)), "duration"),
        (client_pb2.ReceiveWindow(duration=Duration(seconds=5)), "start"),
        (client_pb2.ReceiveWindow(start=time_of_day_pb2.TimeOfDay(minutes=60), duration=Duration(seconds=5)), "start"),
        (
            client_pb2.ReceiveWindow(start=time_of_day_pb2.TimeOfDay(), duration=Duration(seconds=5, nanos=1)),
            "duration",
        ),
        (client_pb2.ReceiveWindow(start=time_of_day_pb2.TimeOfDay(), duration=Duration(seconds=2**62)), "duration"),
    ],
)
async def test_a_bad_window_is_rejected(service: Service, bad: client_pb2.ReceiveWindow, path: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"client.receive_window.{path}"):
        await add_client(service, receive_window=bad)


@pytest.mark.parametrize(
    "zone", ["Factory", "localtime", "posixrules", "europe/moscow", "+03:00", "MSK", "Europe/Moscow\0"]
)
async def test_only_iana_names_are_zones(service: Service, zone: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client.timezone"):
        await add_client(service, timezone=zone)


@pytest.mark.parametrize("client_id", [16, 2**62, 5_000_000_000])
async def test_an_unknown_client_is_not_found(service: Service, client_id: int) -> None:
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND") as info:
        await service.clients.GetClient(GetClientRequest(client_id=client_id))
    assert info.metadata == {"client": str(client_id)}
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
        await update(service, client_pb2.Client(id=client_id, tag="x"))
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
        await service.clients.DeleteClient(DeleteClientRequest(client_id=client_id))


@pytest.mark.parametrize("client_id", [0, -1])
async def test_an_id_that_none_can_have_is_a_bad_field(service: Service, client_id: int) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client_id"):
        await service.clients.GetClient(GetClientRequest(client_id=client_id))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client_id"):
        await service.clients.DeleteClient(DeleteClientRequest(client_id=client_id))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "client.id"):
        await update(service, client_pb2.Client(id=client_id, tag="x"))


async def test_pages_show_every_client_once_in_the_order_of_ids(service: Service) -> None:
    await imported(service, [client(79260000000 + n) for n in range(95)])
    seen: list[int] = []
    request = ListClientsRequest(page_size=10)
    while True:
        page = await service.clients.ListClients(request)
        seen += [one.id for one in page.clients]
        if not page.next_page_token:
            break
        assert len(page.clients) == 10
        request.page_token = page.next_page_token
    assert len(seen) == 95
    assert seen == sorted(set(seen))
    assert len((await service.clients.ListClients(ListClientsRequest())).clients) == 50


async def test_a_page_that_ends_with_the_last_client_has_no_token(service: Service) -> None:
    await imported(service, [client(79260000000 + n) for n in range(10)])
    assert not (await service.clients.ListClients(ListClientsRequest(page_size=10))).next_page_token


async def test_filters_take_any_value_of_a_field_and_every_field(service: Service) -> None:
    gold = await add_client(service, 79260000001, tag="gold", attributes={"city": "Omsk", "vip": "1"})
    silver = await add_client(service, 79160000001, tag="silver", timezone="Asia/Omsk")
    plain = await add_client(service, 49170000001, timezone="Europe/Berlin")

    async def found(**fields: object) -> set[int]:
        chosen = client_pb2.ClientFilter(**fields)  # type: ignore[arg-type]
        page = await service.clients.ListClients(ListClientsRequest(filter=chosen))
        return {one.id for one in page.clients}

    assert await found() == {gold.id, silver.id, plain.id}
    assert await found(tags=["gold", "silver"]) == {gold.id, silver.id}
    assert await found(tags=[""]) == {plain.id}
    assert await found(operator_codes=["926"]) == {gold.id}
    assert await found(timezones=["Asia/Omsk", "Europe/Berlin"]) == {silver.id, plain.id}
    assert await found(attributes={"city": "Omsk"}) == {gold.id}
    assert await found(attributes={"city": "Omsk", "vip": "2"}) == set()
    assert await found(client_ids=[gold.id, plain.id, 999]) == {gold.id, plain.id}
    assert await found(client_ids=[gold.id, plain.id], tags=["gold"]) == {gold.id}


async def test_receiving_now_shows_those_inside_their_window(service: Service) -> None:
    now = datetime.now(UTC)
    always = await add_client(service, 79260000001)
    around = window((now.hour - 1) % 24, 3 * 3600)
    inside = await add_client(service, 79260000002, timezone="UTC", receive_window=around)
    await add_client(service, 79260000003, timezone="UTC", receive_window=window((now.hour + 6) % 24))
    page = await service.clients.ListClients(ListClientsRequest(receiving_now=True))
    assert [one.id for one in page.clients] == sorted([always.id, inside.id])


async def test_receiving_now_knows_the_quiet_hours_of_the_service(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when clients without a window count as inside it during the quiet hours."""
    now = datetime.now(UTC)
    quiet = await add_client(service, 79260000001, timezone="UTC")
    there = await add_client(service, 79260000002, timezone="Etc/GMT-6")
    whole_day = window(now.hour, 24 * 3600)
    own = await add_client(service, 79260000003, timezone="UTC", receive_window=whole_day)
    starts = timedelta(hours=(now.hour + 5) % 24)
    await pool.execute(
        "UPDATE dispatch_settings SET default_window_start = time '00:00' + $1::interval,"
        " default_window_length = '3 h'",
        starts,
    )
    for chosen in (None, client_pb2.ClientFilter(client_ids=[quiet.id, there.id, own.id])):
        page = await service.clients.ListClients(ListClientsRequest(receiving_now=True, filter=chosen))
        assert [one.id for one in page.clients] == sorted([there.id, own.id])


async def test_a_token_of_another_list_is_rejected(service: Service) -> None:
    await imported(service, [client(79260000000 + n) for n in range(3)])
    token = (await service.clients.ListClients(ListClientsRequest(page_size=1))).next_page_token
    chosen = client_pb2.ClientFilter(timezones=["Europe/Moscow"])
    others = (
        ListClientsRequest(page_token=token, filter=chosen),
        ListClientsRequest(page_token=token, receiving_now=True),
        ListClientsRequest(page_token="garbage"),
        ListClientsRequest(page_token=token + "A"),
    )
    for request in others:
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"):
            await service.clients.ListClients(request)
    assert len((await service.clients.ListClients(ListClientsRequest(page_token=token))).clients) == 2


async def test_bad_lists_are_rejected_by_field(service: Service) -> None:
    bad = client_pb2.ClientFilter(timezones=["Nowhere"], operator_codes=["1"])
    paths = ("page_size", "filter.operator_codes[0]", "filter.timezones[0]")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths):
        await service.clients.ListClients(ListClientsRequest(page_size=-1, filter=bad))


async def test_every_write_is_reported_to_running_mailings(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service)
    await update(service, client_pb2.Client(id=made.id, tag="x"))
    await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id))
    rows = await pool.fetch("SELECT bucket, seq, client_ids FROM client_changes ORDER BY seq")
    assert [tuple(row) for row in rows] == [(made.id % 16, seq, [made.id]) for seq in (1, 2, 3)]
