"""Messages (one mailing to one client) and their failed attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.model.states import ErrorClass, Reason, Status
from server.domain.clients import ClientDefinition, ClientKey
from server.domain.receipts import NO_RECEIPT, MessageReceipt, Receipt

_CLIENT_BITS = 32


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `duration` and `endpoint_code` are those of the last attempt."""

    mailing_id: int
    client_id: int
    status: Status
    reason: Reason
    attempts: int
    due_at: datetime
    settled_at: datetime | None
    endpoint_status: int
    endpoint_code: int | None
    duration: timedelta | None
    created_at: datetime
    receipt: MessageReceipt = NO_RECEIPT

    @property
    def id(self) -> int:
        """The id that every attempt carries."""
        return message_id(self.mailing_id, self.client_id)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed request. `number` counts from 1."""

    number: int
    at: datetime
    endpoint: str
    endpoint_status: int
    endpoint_code: int | None
    error_class: ErrorClass
    duration: timedelta
    response_excerpt: str


@dataclass(frozen=True, slots=True)
class ExportedMessage:
    """A message with its client as they are now, None for a deleted one."""

    message: Message
    client: ClientDefinition | None


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Which messages a list returns. An id of 0, or no phone, means any; at least one is set."""

    mailing_id: int = 0
    client: ClientKey = 0
    statuses: tuple[Status, ...] = ()
    receipts: tuple[Receipt, ...] = ()


def message_id(mailing_id: int, client_id: int) -> int:
    """Return the id of the message of a mailing to a client."""
    return mailing_id << _CLIENT_BITS | client_id


def split_message_id(identity: int) -> tuple[int, int]:
    """Return the mailing's and the client's id of a message's id."""
    return identity >> _CLIENT_BITS, identity & (1 << _CLIENT_BITS) - 1
