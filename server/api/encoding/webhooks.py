"""Webhooks and requests to them → their protobuf messages."""

from __future__ import annotations

from datetime import datetime, timedelta

from dispatcher.model.endpoints import Answer
from mailing.v1 import message_pb2, webhook_pb2
from server.api.encoding.wellknown import duration, timestamp
from server.domain.resume_tokens import Tokens
from server.domain.webhooks import WebhookConfig
from server.storage.webhooks import WebhookStatus

MOST_WAITING = 1_000_000


def webhook_message(config: WebhookConfig, status: WebhookStatus | None, tokens: Tokens) -> webhook_pb2.Webhook:
    """Return a webhook with where it stands; without a status it was not served yet."""
    message = webhook_pb2.Webhook(
        name=config.name, url=config.shown_url, events=sorted(config.events), labels=config.labels
    )
    if status is None:
        return message
    message.disabled = status.disabled
    message.position = tokens.encode(status.feed, status.timeline)
    message.waiting = min(status.waiting, MOST_WAITING)
    message.last_error = status.last_error
    for field, value in (
        ("last_success_time", timestamp(status.last_success_at)),
        ("next_attempt_time", timestamp(status.next_attempt_at)),
        ("lag", duration(status.lag)),
    ):
        if value is not None:
            getattr(message, field).CopyFrom(value)
    return message


def webhook_attempt(name: str, began_at: datetime, answer: Answer) -> message_pb2.Attempt:
    """Return a request to a webhook as an attempt."""
    return message_pb2.Attempt(
        number=1,
        time=timestamp(began_at),
        endpoint=name,
        endpoint_status=answer.status,
        error_class=message_pb2.Attempt.ErrorClass.ValueType(answer.error),
        duration=duration(timedelta(seconds=answer.duration)),
        response_excerpt=answer.body[:200].decode("utf-8", "replace"),
    )
