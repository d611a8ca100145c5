"""The error table: from the domain's exceptions to gRPC's status codes and the contract's reasons.

Every status carries a google.rpc.ErrorInfo, bad fields a google.rpc.BadRequest beside it, and
limits a google.rpc.RetryInfo. Exceptions that are not in the table are internal errors: the
caller gets INTERNAL and an id, the log gets the id and the cause.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message as ProtoMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mailing.v1.error_pb2 import ErrorReason
from server.domain.errors import (
    BodyTooSlow,
    CalendarUnknown,
    CallTooLong,
    ClientNumbersExhausted,
    ClientOptedOut,
    Conflict,
    ConnectionAged,
    DatabaseUnavailable,
    DomainError,
    EndpointUnknown,
    FieldViolation,
    ImportTooLarge,
    InvalidFields,
    InvalidFilter,
    InvalidPageToken,
    InvalidResumeToken,
    Kind,
    LimitReached,
    MailingEnded,
    MalformedRequest,
    MessagesRemoved,
    MessageTooLarge,
    MethodClosed,
    NotFound,
    PhoneTaken,
    PhoneUnknown,
    RateExceeded,
    ReaderTooSlow,
    RequestIdReused,
    RequestUnanswered,
    ResumeTokenExpired,
    ScanTooLong,
    ScheduleOverlaps,
    ScopeMissing,
    SegmentInUse,
    SegmentNameTaken,
    SegmentUnknown,
    ServiceUnknown,
    ShuttingDown,
    StaleEtag,
    TooManyWaiting,
    Unauthenticated,
    WebhookUnknown,
    WrongState,
)

DOMAIN = "mailing.v1"

MAX_VIOLATION_BYTES = 3000
"""Trailing metadata of more than 8 KB may be dropped on the way, and with it the status."""

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """The status code of an error, and its reason in the contract."""

    code: grpc.StatusCode
    reason: ErrorReason.ValueType


ANSWERS: Mapping[type[DomainError], Answer] = {
    InvalidFields: Answer(grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_INVALID_FIELD),
    InvalidFilter: Answer(grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_INVALID_FILTER),
    MalformedRequest: Answer(grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_INVALID_FIELD),
    MessageTooLarge: Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE),
    InvalidPageToken: Answer(grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_INVALID_PAGE_TOKEN),
    NotFound: Answer(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_UNSPECIFIED),
    EndpointUnknown: Answer(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_ENDPOINT_NOT_FOUND),
    CalendarUnknown: Answer(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_CALENDAR_NOT_FOUND),
    WebhookUnknown: Answer(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_WEBHOOK_NOT_FOUND),
    SegmentUnknown: Answer(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_SEGMENT_NOT_FOUND),
    SegmentNameTaken: Answer(grpc.StatusCode.ALREADY_EXISTS, ErrorReason.ERROR_REASON_SEGMENT_NAME_TAKEN),
    SegmentInUse: Answer(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_SEGMENT_IN_USE),
    ClientNumbersExhausted: Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_LIMIT_REACHED),
    PhoneUnknown: Answer(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_CLIENT_NOT_FOUND),
    PhoneTaken: Answer(grpc.StatusCode.ALREADY_EXISTS, ErrorReason.ERROR_REASON_PHONE_TAKEN),
    RequestIdReused: Answer(grpc.StatusCode.ALREADY_EXISTS, ErrorReason.ERROR_REASON_REQUEST_ID_REUSED),
    RequestUnanswered: Answer(grpc.StatusCode.ALREADY_EXISTS, ErrorReason.ERROR_REASON_REQUEST_ID_REUSED),
    WrongState: Answer(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_WRONG_STATE),
    MessagesRemoved: Answer(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_WRONG_STATE),
    MailingEnded: Answer(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_MAILING_ENDED),
    ClientOptedOut: Answer(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_CLIENT_OPTED_OUT),
    ScheduleOverlaps: Answer(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_SCHEDULE_OVERLAPS),
    StaleEtag: Answer(grpc.StatusCode.ABORTED, ErrorReason.ERROR_REASON_STALE_ETAG),
    Conflict: Answer(grpc.StatusCode.ABORTED, ErrorReason.ERROR_REASON_CONFLICT),
    DatabaseUnavailable: Answer(grpc.StatusCode.UNAVAILABLE, ErrorReason.ERROR_REASON_DATABASE_UNAVAILABLE),
    InvalidResumeToken: Answer(grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_INVALID_RESUME_TOKEN),
    ResumeTokenExpired: Answer(grpc.StatusCode.OUT_OF_RANGE, ErrorReason.ERROR_REASON_RESUME_TOKEN_EXPIRED),
    ReaderTooSlow: Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_READER_TOO_SLOW),
    LimitReached: Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_LIMIT_REACHED),
    RateExceeded: Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_LIMIT_REACHED),
    CallTooLong: Answer(grpc.StatusCode.DEADLINE_EXCEEDED, ErrorReason.ERROR_REASON_LIMIT_REACHED),
    ScanTooLong: Answer(grpc.StatusCode.DEADLINE_EXCEEDED, ErrorReason.ERROR_REASON_LIMIT_REACHED),
    ImportTooLarge: Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE),
    BodyTooSlow: Answer(grpc.StatusCode.DEADLINE_EXCEEDED, ErrorReason.ERROR_REASON_BODY_TOO_SLOW),
    TooManyWaiting: Answer(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_TOO_MANY_WAITING),
    ShuttingDown: Answer(grpc.StatusCode.UNAVAILABLE, ErrorReason.ERROR_REASON_SHUTTING_DOWN),
    ConnectionAged: Answer(grpc.StatusCode.UNAVAILABLE, ErrorReason.ERROR_REASON_CONNECTION_AGED),
    Unauthenticated: Answer(grpc.StatusCode.UNAUTHENTICATED, ErrorReason.ERROR_REASON_UNAUTHENTICATED),
    ScopeMissing: Answer(grpc.StatusCode.PERMISSION_DENIED, ErrorReason.ERROR_REASON_SCOPE_MISSING),
    ServiceUnknown: Answer(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_UNSPECIFIED),
    MethodClosed: Answer(grpc.StatusCode.PERMISSION_DENIED, ErrorReason.ERROR_REASON_SCOPE_MISSING),
}
"""Every error of the domain."""

MISSING: Mapping[Kind, ErrorReason.ValueType] = {
    Kind.CLIENT: ErrorReason.ERROR_REASON_CLIENT_NOT_FOUND,
    Kind.MAILING: ErrorReason.ERROR_REASON_MAILING_NOT_FOUND,
    Kind.MESSAGE: ErrorReason.ERROR_REASON_MESSAGE_NOT_FOUND,
    Kind.SCHEDULE: ErrorReason.ERROR_REASON_SCHEDULE_NOT_FOUND,
    Kind.SEGMENT: ErrorReason.ERROR_REASON_SEGMENT_NOT_FOUND,
}
"""The reason of NotFound, by what was not found."""


def status_of(error: Exception, method: str) -> Status:
    """Return the status of `error` for the caller of `method`; log errors that are not the caller's fault."""
    if not isinstance(error, DomainError) or type(error) not in ANSWERS:
        return _internal(error, method)
    if isinstance(error, DatabaseUnavailable):
        _log.warning("%s: the database is unavailable: %r", method, error.__cause__)
    answer = ANSWERS[type(error)]
    reason = MISSING[error.kind] if isinstance(error, NotFound) else answer.reason
    details: list[ProtoMessage] = [_info(reason, error.facts)]
    if isinstance(error, InvalidFields | InvalidFilter):
        details.append(_bad_request(error.violations))
    if error.retry_after is not None:
        details.append(_retry_info(error.retry_after))
    return _status(answer.code, str(error), details)


def _internal(error: Exception, method: str) -> Status:
    error_id = uuid4().hex
    _log.error("%s failed with an internal error, error id %s", method, error_id, exc_info=error)
    info = _info(ErrorReason.ERROR_REASON_INTERNAL, {"error_id": error_id})
    sentence = f"An internal error of the service; its log has the cause under the id {error_id}."
    return _status(grpc.StatusCode.INTERNAL, sentence, [info])


def _info(reason: ErrorReason.ValueType, facts: Mapping[str, str]) -> ErrorInfo:
    name = ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
    return ErrorInfo(reason=name, domain=DOMAIN, metadata=facts)


def _retry_info(seconds: float) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return info


def _bad_request(violations: Iterable[FieldViolation]) -> BadRequest:
    """Return as many of the violations as fit."""
    request = BadRequest()
    for violation in violations:
        request.field_violations.add(field=violation.path, description=violation.sentence)
        if request.ByteSize() > MAX_VIOLATION_BYTES:
            break
    return request


def _status(code: grpc.StatusCode, sentence: str, details: Iterable[ProtoMessage]) -> Status:
    status = Status(code=code.value[0], message=sentence)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status
