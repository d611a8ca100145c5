"""The story of one client: their messages with mailings and failed attempts, and what happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.model.states import MailingState
from server.domain.clients import Client
from server.domain.events import RecordedEvent
from server.domain.messages import Attempt, Message
from server.domain.pagination import Page

MAX_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class StoryPart:
    """One message of a client: what its mailing is, and its failed attempts in order."""

    message: Message
    mailing_title: str
    mailing_state: MailingState
    endpoint: str
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True)
class Story:
    """A page of what is known of a client, who is None when deleted. `events` come with the first page only."""

    client: Client | None
    parts: Page[StoryPart]
    events: Sequence[RecordedEvent]
