"""Requests from bytes: how large they may be, and what is kept of them.

A request that is no message of its type gets INVALID_ARGUMENT; gRPC by itself would answer UNKNOWN with
the decoder's words and log a traceback. Fields that this version does not know are dropped: a stream
would hold them for as long as it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.api.handlers import Handler
from server.domain.errors import MalformedRequest, MessageTooLarge

Decoder = Callable[[bytes], Any]

_KIB = 1024
_NAMES = 64 * _KIB
"""Requests that name what they are about: ids, states, times, tokens."""
_RESOURCES = 1024 * _KIB
"""Requests that contain a resource or a filter, which may list ten thousand clients."""

_LARGEST: Mapping[str, int] = {
    "/grpc.health.v1.Health/": _KIB,
    "/grpc.reflection.": 4 * _KIB,
    "/mailing.v1.DeliveryService/": 16 * _KIB,
    "/mailing.v1.ClientService/Get": _NAMES,
    "/mailing.v1.ClientService/Delete": _NAMES,
    "/mailing.v1.ClientService/": _RESOURCES,
    "/mailing.v1.MailingService/Create": _RESOURCES,
    "/mailing.v1.MailingService/Update": _RESOURCES,
    "/mailing.v1.MailingService/Preview": _RESOURCES,
    "/mailing.v1.MailingService/SendTest": _RESOURCES,
    "/mailing.v1.ScheduleService/Create": _RESOURCES,
    "/mailing.v1.ScheduleService/Update": _RESOURCES,
    "/mailing.v1.SegmentService/": _RESOURCES,
    "/mailing.v1.": _NAMES,
}
"""The size of a request in bytes, by the beginning of the method's path; the first that fits counts."""

_MANY = frozenset({"/mailing.v1.ClientService/ImportClients"})
"""Methods whose messages may be as large as any."""


def largest_request(method: str, most: int) -> int:
    """Return how many bytes a message to this method may have; `most` is what any may have."""
    if method in _MANY:
        return most
    return min(most, next(size for beginning, size in _LARGEST.items() if method.startswith(beginning)))


def decoder(handler: Handler, method: str, most: int) -> Decoder:
    """Return what makes the request of this method. It raises MessageTooLarge and MalformedRequest."""
    decode, largest = handler.request_deserializer, largest_request(method, most)
    assert decode is not None, "every method of this server takes a message"

    def decoded(data: Any) -> Any:
        if data is grpc.aio.EOF:
            raise MalformedRequest
        if len(data) > largest:
            raise MessageTooLarge(len(data), largest)
        try:
            request = decode(data)
        except DecodeError:
            raise MalformedRequest from None
        request.DiscardUnknownFields()
        return request

    return decoded
