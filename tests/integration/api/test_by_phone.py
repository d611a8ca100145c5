"""A client is named by id or by phone, wherever an id is taken; no answer and no error repeats the phone."""

from __future__ import annotations

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import DeleteClientRequest, GetClientRequest, UpdateClientRequest
from mailing.v1.message_service_pb2 import ListMessagesRequest
from tests.integration.api.calls import add_client, refused
from tests.integration.api.conftest import Service
from tests.integration.api.rows import add_batch, add_mailing

PHONE, OTHER = "79261234567", "79261234568"


async def test_a_client_is_read_changed_and_removed_by_phone(service: Service) -> None:
    made = await add_client(service, PHONE)
    assert (await service.clients.GetClient(GetClientRequest(phone=PHONE))).client == made
    change = UpdateClientRequest(phone=PHONE, client=Client(opted_out=True))
    assert (await service.clients.UpdateClient(change)).client.opted_out
    await service.clients.DeleteClient(DeleteClientRequest(phone=PHONE))
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
        await service.clients.GetClient(GetClientRequest(client_id=made.id))


async def test_an_update_by_phone_may_give_a_new_one(service: Service) -> None:
    made = await add_client(service, PHONE)
    change = UpdateClientRequest(phone=PHONE, client=Client(phone=OTHER), update_mask=FieldMask(paths=["phone"]))
    assert (await service.clients.UpdateClient(change)).client.id == made.id
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND") as info:
        await service.clients.UpdateClient(change)
    assert not info.metadata
    assert (await service.clients.GetClient(GetClientRequest(phone=OTHER))).client.id == made.id


async def test_messages_are_listed_by_phone(service: Service, pool: asyncpg.Pool) -> None:
    made = await add_client(service, PHONE)
    mailing_id = await add_mailing(pool)
    await add_batch(pool, mailing_id, [made.id])
    found = await service.messages.ListMessages(ListMessagesRequest(phone=PHONE))
    assert [(one.mailing_id, one.client_id) for one in found.messages] == [(mailing_id, made.id)]
    with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
        await service.messages.ListMessages(ListMessagesRequest(phone=OTHER))


async def test_id_and_phone_together_are_refused(service: Service) -> None:
    made = await add_client(service, PHONE)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "phone"):
        await service.clients.GetClient(GetClientRequest(client_id=made.id, phone=PHONE))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "phone"):
        await service.clients.UpdateClient(UpdateClientRequest(phone=PHONE, client=Client(id=made.id, tag="x")))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "phone"):
        await service.clients.DeleteClient(DeleteClientRequest(client_id=made.id, phone=PHONE))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "phone"):
        await service.messages.ListMessages(ListMessagesRequest(client_id=made.id, phone=PHONE))


@pytest.mark.parametrize("phone", ["+79261234567", "8 926 123", "abc"])
async def test_what_is_no_phone_is_refused_before_it_is_looked_up(service: Service, phone: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "phone"):
        await service.clients.GetClient(GetClientRequest(phone=phone))


async def test_a_missing_client_may_be_allowed_in_a_deletion(service: Service) -> None:
    for request in (DeleteClientRequest(phone=PHONE), DeleteClientRequest(client_id=77)):
        with refused("NOT_FOUND", "CLIENT_NOT_FOUND"):
            await service.clients.DeleteClient(request)
        request.allow_missing = True
        assert (await service.clients.DeleteClient(request)).cancelled_messages == 0


async def test_a_checked_update_changes_nothing(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when the rehearsal is kept: the phone, or the event of the opt-out."""
    made = await add_client(service, PHONE)
    await add_client(service, OTHER)
    change = UpdateClientRequest(phone=PHONE, client=Client(phone="79261234569", opted_out=True), validate_only=True)
    checked = (await service.clients.UpdateClient(change)).client
    assert (checked.id, checked.phone, checked.opted_out) == (made.id, "79261234569", True)
    assert (await service.clients.GetClient(GetClientRequest(phone=PHONE))).client == made
    assert await pool.fetchval("SELECT count(*) FROM log WHERE event = 'client.opted_out'") == 0
    with refused("ALREADY_EXISTS", "PHONE_TAKEN"):
        taken = UpdateClientRequest(phone=PHONE, client=Client(phone=OTHER), validate_only=True)
        await service.clients.UpdateClient(taken)
