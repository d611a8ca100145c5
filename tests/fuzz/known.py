"""What requests may name that exists: clients, mailings in several states, their tokens and tags."""

from __future__ import annotations

from itertools import count
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.v1 import client_pb2, mailing_pb2
from mailing.v1.client_service_pb2 import CreateClientRequest, ListClientsRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.delivery_service_pb2 import WatchMessagesRequest
from mailing.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from mailing.v1.mailing_service_pb2 import (
    CancelMailingRequest,
    CreateMailingRequest,
    ListMailingsRequest,
    PauseMailingRequest,
)
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.time_of_day_pb2 import TimeOfDay
from tests.fuzz.payloads import Known

ZONES = ("Europe/Moscow", "Asia/Kathmandu", "America/St_Johns", "UTC")
_phones = count(79160000000)


def known_values(channel: grpc.Channel) -> Known:
    """Make some clients and mailings; return what names them, by the fields it is for."""
    clients = [_client(channel, tag) for tag in ("vip", "vip", "new")]
    mailings = [_mailing(channel) for _ in range(4)]
    calls = MailingServiceStub(channel)
    calls.PauseMailing(PauseMailingRequest(mailing_id=mailings[0].id))
    calls.CancelMailing(CancelMailingRequest(mailing_id=mailings[1].id))
    page = ClientServiceStub(channel).ListClients(ListClientsRequest(page_size=1)).next_page_token
    mailing_page = calls.ListMailings(ListMailingsRequest(page_size=1)).next_page_token
    client_ids, mailing_ids = [client.id for client in clients], [mailing.id for mailing in mailings]
    return {
        "id": [*client_ids, *mailing_ids],
        "client_id": client_ids,
        "client_ids": client_ids,
        "mailing_id": mailing_ids,
        "message_id": [mailing << 32 | client for mailing in mailing_ids for client in client_ids],
        "phone": [*(client.phone for client in clients), str(next(_phones)), "+79990000000", "123"],
        "timezone": ZONES,
        "timezones": ZONES,
        "operator_code": ["916", "", "9160"],
        "operator_codes": ["916"],
        "tag": ["vip", "x" * 100],
        "tags": ["vip", "new"],
        "text": ["Hello {tag} {phone} {attributes.name|you}", "{attributes.name}"],
        "etag": [clients[0].etag, mailings[0].etag, "1-1"],
        "endpoint": ["default", "", "nowhere"],
        "page_size": [1, 1000, -1],
        "page_token": [page, mailing_page, page[:-1], "not a token"],
        "resume_token": [_resume_token(channel), "AAAA"],
        "request_id": ["3f0c6e0a-9d0b-4c5e-8a53-0d6d0ad1b6a4", "{3F0C6E0A9D0B4C5E8A530D6D0AD1B6A4}"],
        "update_mask": [FieldMask(paths=[path]) for path in ("*", "phone", "text", "receive_window", "end_time", "id")],
        "receive_window": [client_pb2.ReceiveWindow(start=TimeOfDay(hours=9), duration=Duration(seconds=3600))],
        "statuses": [1, 2, 3],
        "states": [1, 2, 3],
        "key": ["name", "a_b"],
        "samples": [1, 10],
    }


def _client(channel: grpc.Channel, tag: str) -> client_pb2.Client:
    fields: dict[str, Any] = {"phone": str(next(_phones)), "timezone": ZONES[0], "tag": tag}
    return ClientServiceStub(channel).CreateClient(CreateClientRequest(client=client_pb2.Client(**fields))).client


def _mailing(channel: grpc.Channel) -> mailing_pb2.Mailing:
    start = Timestamp()
    start.GetCurrentTime()
    wanted = mailing_pb2.Mailing(text="Hello {tag}", start_time=start, labels={"name": "a"})
    return MailingServiceStub(channel).CreateMailing(CreateMailingRequest(mailing=wanted)).mailing


def _resume_token(channel: grpc.Channel) -> str:
    stream = DeliveryServiceStub(channel).WatchMessages(WatchMessagesRequest(from_start=True), timeout=30)
    token = next(stream).resume_token
    stream.cancel()
    return token
