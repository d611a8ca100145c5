"""Previews as callers ask for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mailing.v1 import client_pb2
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest, PreviewMailingResponse
from mailing.v1.message_pb2 import Message
from tests.integration.api.calls import add_client, mailing
from tests.integration.api.conftest import Service

MIDNIGHT = datetime(2040, 1, 1, tzinfo=UTC)
"""A start in a zone without daylight saving, on a day that no test lives to see."""


def stamp(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def hours(number: float) -> Timestamp:
    return stamp(MIDNIGHT + timedelta(hours=number))


async def preview(service: Service, text: str = "Hello", samples: int = 0, **fields: Any) -> PreviewMailingResponse:
    request = PreviewMailingRequest(mailing=mailing(text, **fields), samples=samples)
    return await service.mailings.PreviewMailing(request)


async def preview_stored(service: Service, mailing_id: int) -> PreviewMailingResponse:
    return await service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=mailing_id))


def exclusions(answer: PreviewMailingResponse) -> dict[str, int]:
    return {Message.Reason.Name(one.reason).removeprefix("REASON_"): one.count for one in answer.exclusions}


async def add_clients(service: Service, count: int, first: int = 79260000000, **fields: Any) -> list[client_pb2.Client]:
    fields = {"timezone": "UTC", **fields}
    return [await add_client(service, phone, **fields) for phone in range(first, first + count)]
