"""What a failed call raises: `MailingError`, made from a gRPC error and its rich details.

Reads google.rpc.ErrorInfo, BadRequest and RetryInfo, so that no caller has to parse trailing metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_TRANSPORT_CODES = (
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
)
"""With one of these and without an ErrorInfo, something on the way has answered, not the service."""


_HINTS = (
    ("andshake failed", "TLS could not be agreed on: check the authority, the certificate and the name in it"),
    ("Connection refused", "no service listens at this address"),
    ("lookup failed", "the name of the service cannot be resolved"),
    ("Failed parsing HTTP/2", "what answers at this address is no gRPC service, perhaps a web server or one with TLS"),
    ("http2 header with status", "a proxy or a web server answered in place of the service"),
)
"""What gRPC says of failures on the way, and what that means."""


class FieldViolation(NamedTuple):
    """One invalid field: its path in the request, such as `clients[17].timezone`, and a sentence."""

    field: str
    description: str


class MailingError(Exception):
    """A call that failed.

    `code` is the gRPC status. `reason` is a name of `mailing.v1.ErrorReason` without its
    prefix, such as `PHONE_TAKEN`, or empty when the service was not reached. `message` is
    one sentence. `fields` has the invalid fields of an INVALID_ARGUMENT, `metadata` the details of the reason.
    `retry_delay` is how many seconds the service asks to wait before the call is repeated, 0 when it does not say.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str = "",
        message: str = "",
        fields: tuple[FieldViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_delay: float = 0.0,
    ) -> None:
        super().__init__(code, reason, message, fields)
        self.code = code
        self.reason = reason
        self.message = message
        self.fields = fields
        self.metadata = dict(metadata or {})
        self.retry_delay = retry_delay

    def __str__(self) -> str:
        text = "; ".join(f"{field}: {description}" for field, description in self.fields) or self.message
        return f"{self.code.name}: {text}" + (f" ({self.reason})" if self.reason else "")

    @property
    def is_transport(self) -> bool:
        """Whether the network, a proxy or something else on the way failed, and not the service."""
        return not self.reason and self.code in _TRANSPORT_CODES

    @classmethod
    def from_rpc_error(cls, error: grpc.RpcError) -> MailingError:
        """Return the same failure with its details; works for any gRPC error."""
        if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
            return cls(grpc.StatusCode.UNKNOWN, message=str(error))
        reason, fields, metadata, retry_delay = _details_of(error)
        failure = cls(error.code(), reason, error.details() or "", fields, metadata, retry_delay)
        if failure.is_transport:
            failure.message = _explained(failure.message)
        return failure


@contextmanager
def mailing_errors() -> Iterator[None]:
    """Translate gRPC errors raised in the block to `MailingError`: for direct use of the stubs."""
    try:
        yield
    except grpc.RpcError as error:
        raise MailingError.from_rpc_error(error) from error


def _explained(message: str) -> str:
    """Return what gRPC says of a failure on the way, with a sentence for people before it where there is one."""
    hint = next((hint for words, hint in _HINTS if words in message), "")
    return f"{hint} ({message})" if hint else message


def _details_of(
    call: grpc.Call | grpc.aio.AioRpcError,
) -> tuple[str, tuple[FieldViolation, ...], dict[str, str], float]:
    reason, fields, metadata, retry_delay = "", [], dict[str, str](), 0.0
    for detail in _status_of(call).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            fields += [FieldViolation(one.field, one.description) for one in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_delay = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, tuple(fields), metadata, retry_delay


def _status_of(call: grpc.Call | grpc.aio.AioRpcError) -> status_pb2.Status:
    # A proxy may rewrite the plain status and leave the rich one: then there are no details.
    try:
        return rpc_status.from_call(call) or status_pb2.Status()
    except ValueError:
        return status_pb2.Status()
