"""What a failed call raises: `MailingError`, made from a gRPC error and its rich details.

Reads google.rpc.ErrorInfo and BadRequest, so that no caller has to parse trailing metadata.
Whether to retry is the caller's decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class FieldViolation(NamedTuple):
    """One invalid field: its path in the request, such as `clients[17].timezone`, and a sentence."""

    field: str
    description: str


class MailingError(Exception):
    """A call that failed.

    `code` is the gRPC status. `reason` is a name of `mailing.v1.ErrorReason` without its
    prefix, such as `PHONE_TAKEN`, or empty when the service was not reached. `message` is
    one sentence. `fields` has the invalid fields of an INVALID_ARGUMENT, `metadata` the details of the reason.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str = "",
        message: str = "",
        fields: tuple[FieldViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, reason, message, fields)
        self.code = code
        self.reason = reason
        self.message = message
        self.fields = fields
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        text = "; ".join(f"{field}: {description}" for field, description in self.fields) or self.message
        return f"{self.code.name}: {text}" + (f" ({self.reason})" if self.reason else "")

    @classmethod
    def from_rpc_error(cls, error: grpc.RpcError) -> MailingError:
        """Return the same failure with its details; works for any gRPC error."""
        if not isinstance(error, grpc.Call):
            return cls(grpc.StatusCode.UNKNOWN, message=str(error))
        reason, fields, metadata = _details_of(error)
        return cls(error.code(), reason, error.details() or "", fields, metadata)


@contextmanager
def mailing_errors() -> Iterator[None]:
    """Translate gRPC errors raised in the block to `MailingError`: for direct use of the stubs."""
    try:
        yield
    except grpc.RpcError as error:
        raise MailingError.from_rpc_error(error) from error


def _details_of(call: grpc.Call) -> tuple[str, tuple[FieldViolation, ...], dict[str, str]]:
    reason, fields, metadata = "", [], dict[str, str]()
    for detail in _status_of(call).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            fields += [FieldViolation(one.field, one.description) for one in bad.field_violations]
    return reason, tuple(fields), metadata


def _status_of(call: grpc.Call) -> status_pb2.Status:
    # A proxy may rewrite the plain status and leave the rich one: then there are no details.
    try:
        return rpc_status.from_call(call) or status_pb2.Status()
    except ValueError:
        return status_pb2.Status()
