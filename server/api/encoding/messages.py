"""Messages and attempts as their messages."""

from __future__ import annotations

from mailing.v1 import message_pb2
from server.api.encoding.masking import shown_excerpt
from server.api.encoding.wellknown import duration, timestamp
from server.domain.messages import Attempt, Message


def ledger_message(message: Message) -> message_pb2.Message:
    """Return a row of the ledger as its message."""
    return message_pb2.Message(
        id=message.id,
        mailing_id=message.mailing_id,
        client_id=message.client_id,
        status=message_pb2.Message.Status.ValueType(message.status),
        reason=message_pb2.Message.Reason.ValueType(message.reason),
        attempts=message.attempts,
        due_time=timestamp(message.due_at),
        settle_time=timestamp(message.settled_at),
        endpoint_status=message.endpoint_status,
        endpoint_code=message.endpoint_code,
        duration=duration(message.duration),
        create_time=timestamp(message.created_at),
    )


def attempt_message(attempt: Attempt) -> message_pb2.Attempt:
    """Return a failed attempt as its message."""
    return message_pb2.Attempt(
        number=attempt.number,
        time=timestamp(attempt.at),
        endpoint=attempt.endpoint,
        endpoint_status=attempt.endpoint_status,
        endpoint_code=attempt.endpoint_code,
        error_class=message_pb2.Attempt.ErrorClass.ValueType(attempt.error_class),
        duration=duration(attempt.duration),
        response_excerpt=shown_excerpt(attempt.response_excerpt),
    )
