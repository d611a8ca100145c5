"""Ids of messages: each names its mailing and its client."""

from __future__ import annotations

_CLIENT_BITS = 32


def message_id(mailing_id: int, client_id: int) -> int:
    """Return the id of the message of a mailing to a client."""
    return mailing_id << _CLIENT_BITS | client_id


def mailing_of(message_id: int) -> int:
    """Return the id of the mailing to which a message belongs."""
    return message_id >> _CLIENT_BITS


def client_of(message_id: int) -> int:
    """Return the id of the client to whom a message goes."""
    return message_id & ((1 << _CLIENT_BITS) - 1)
