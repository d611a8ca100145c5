"""Failures as HTTP: the status of each gRPC code, and google.rpc.Status as JSON with its details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import orjson
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from mailing.v1.error_pb2 import ErrorReason

HTTP_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""As google.rpc.Code says for each code."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DOMAIN = "mailing.v1"


class Refusal(Exception):
    """A request that ends here or at the API: its status, and the HTTP status where it is not the usual one."""

    def __init__(self, status: Status, http_status: int = 0, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status.message)
        self.status = status
        self.http_status = http_status or HTTP_STATUS[_CODES.get(status.code, grpc.StatusCode.UNKNOWN)]
        self.headers = {**(headers or {}), **_headers(status)}

    @classmethod
    def of_call(cls, error: grpc.aio.AioRpcError) -> Refusal:
        """Return the refusal of a call that the API ended."""
        try:
            status = rpc_status.from_call(error)
        except ValueError:
            status = None
        return cls(status or Status(code=error.code().value[0], message=error.details() or ""))


def refusal(
    code: grpc.StatusCode,
    reason: ErrorReason.ValueType,
    sentence: str,
    *,
    field: str = "",
    retry_after: int = 0,
    http_status: int = 0,
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """Return a refusal of our own, in the shape of the API's."""
    info = ErrorInfo(reason=ErrorReason.Name(reason).removeprefix("ERROR_REASON_"), domain=_DOMAIN)
    details: list[Message] = [info] if reason else []
    if field:
        details.append(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=sentence)]))
    if retry_after:
        details.append(RetryInfo(retry_delay=Duration(seconds=retry_after)))
    message = f"{field}: {sentence}" if field else sentence
    return Refusal(Status(code=code.value[0], message=message, details=_packed(details)), http_status, headers)


def json_of(message: Message) -> bytes:
    """Return a message in protobuf's JSON, without what is empty."""
    return orjson.dumps(MessageToDict(message))


def json_of_status(status: Status) -> bytes:
    """Return a status as JSON; a detail of an unknown type is left out."""
    try:
        return json_of(status)
    except TypeError:
        known = (ErrorInfo, BadRequest, RetryInfo)
        details = [one for one in status.details if any(one.Is(kind.DESCRIPTOR) for kind in known)]
        return json_of(Status(code=status.code, message=status.message, details=details))


def _packed(details: Sequence[Message]) -> list[AnyMessage]:
    packed = []
    for detail in details:
        holder = AnyMessage()
        holder.Pack(detail)
        packed.append(holder)
    return packed


def _headers(status: Status) -> dict[str, str]:
    """Return the headers that say the same to HTTP clients: when to try again, and how to sign in."""
    headers: dict[str, str] = {}
    retry: Any = RetryInfo()
    for detail in status.details:
        if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(retry):
            headers["retry-after"] = str(max(1, retry.retry_delay.seconds + bool(retry.retry_delay.nanos)))
    if status.code == grpc.StatusCode.UNAUTHENTICATED.value[0]:
        headers["www-authenticate"] = "Bearer"
    return headers
