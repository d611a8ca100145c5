"""The calls of MailingService that many tests make."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from dispatcher.model.states import MailingState
from mailing.v1 import mailing_pb2
from mailing.v1.mailing_service_pb2 import (
    CreateMailingRequest,
    GetMailingRequest,
    UpdateMailingRequest,
)
from tests.integration.api.calls import mailing
from tests.integration.api.conftest import Service

State = mailing_pb2.Mailing.State


def at(seconds: float) -> Timestamp:
    """So many seconds from now."""
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return moment


async def create(service: Service, text: str = "Hello", **fields: Any) -> mailing_pb2.Mailing:
    request = CreateMailingRequest(mailing=mailing(text, **fields))
    return (await service.mailings.CreateMailing(request)).mailing


async def get(service: Service, mailing_id: int) -> mailing_pb2.Mailing:
    return (await service.mailings.GetMailing(GetMailingRequest(mailing_id=mailing_id))).mailing


async def update(service: Service, changed: mailing_pb2.Mailing, *paths: str) -> mailing_pb2.Mailing:
    request = UpdateMailingRequest(mailing=changed, update_mask=FieldMask(paths=paths))
    return (await service.mailings.UpdateMailing(request)).mailing


async def move_to(pool: asyncpg.Pool, mailing_id: int, state: MailingState) -> None:
    await pool.execute("UPDATE mailings SET state = $2 WHERE id = $1", mailing_id, state)
