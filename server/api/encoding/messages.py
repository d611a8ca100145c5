"""Messages and attempts → their protobuf messages."""

from __future__ import annotations

from dispatcher.model.templates import Template
from mailing.v1 import message_pb2
from server.api.encoding.masking import shown_excerpt, shown_phone
from server.api.encoding.wellknown import duration, timestamp
from server.domain.messages import Attempt, ExportedMessage, Message
from server.domain.principals import Scope, caller


def ledger_message(message: Message) -> message_pb2.Message:
    """Return a message as its protobuf message."""
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
        provider_id=message.receipt.provider_id,
        receipt=message_pb2.Message.Receipt.ValueType(message.receipt.receipt),
        receipt_time=timestamp(message.receipt.at),
        receipt_code=message.receipt.code,
    )


def listed_message(message: Message, phone: str | None) -> message_pb2.Message:
    """Return a message with its client's phone, None for a deleted one, as the caller may see it."""
    listed = ledger_message(message)
    if phone is not None:
        listed.phone = shown_phone(phone)
    return listed


def exported_message(exported: ExportedMessage, template: Template) -> message_pb2.Message:
    """Return an exported message with its client's phone and the text of `template`, as the caller may see them."""
    client = exported.client
    message = listed_message(exported.message, client.phone if client else None)
    if client is not None and caller().may(Scope.CLIENTS_READ):
        message.text = template.render(
            client.phone, client.operator_code, client.tag, client.timezone, client.attributes
        )
    return message


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
