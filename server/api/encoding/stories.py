"""The story of a client → its message."""

from __future__ import annotations

from mailing.v1 import client_service_pb2, mailing_pb2
from server.api.encoding.clients import client_message
from server.api.encoding.events import event_message
from server.api.encoding.messages import attempt_message, ledger_message
from server.api.encoding.sizes import fitted
from server.domain.stories import Story, StoryPart


def story_response(story: Story) -> client_service_pb2.GetClientStoryResponse:
    """Return a page of a story."""
    parts, next_token = fitted(story.parts, _part)
    return client_service_pb2.GetClientStoryResponse(
        client=client_message(story.client) if story.client else None,
        parts=parts,
        events=map(event_message, story.events),
        next_page_token=next_token,
    )


def _part(part: StoryPart) -> client_service_pb2.GetClientStoryResponse.Part:
    return client_service_pb2.GetClientStoryResponse.Part(
        message=ledger_message(part.message),
        mailing_title=part.mailing_title,
        mailing_state=mailing_pb2.Mailing.State.ValueType(part.mailing_state),
        endpoint=part.endpoint,
        attempts=map(attempt_message, part.attempts),
    )
