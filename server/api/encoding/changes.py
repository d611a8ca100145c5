"""Mailings and entries of the change feed as the bytes of stream responses, encoded once for all streams."""

from __future__ import annotations

from dispatcher.model.states import Status
from mailing.v1 import delivery_service_pb2 as pb
from server.api.encoding.mailings import mailing_message
from server.api.encoding.wellknown import timestamp
from server.domain.change_feed import Entry
from server.domain.mailings import Mailing
from server.domain.messages import message_id

RESPONSE_CHANGES = 500
"""Maximum changes in one response."""


def encoded_mailing(mailing: Mailing) -> bytes:
    """Return a mailing as a response of WatchMailing."""
    return pb.WatchMailingResponse(mailing=mailing_message(mailing)).SerializeToString()


def encoded_changes(entry: Entry, statuses: frozenset[Status]) -> tuple[bytes, ...]:
    """Return the chosen changes of an entry in pieces of at most RESPONSE_CHANGES.

    A piece is the field `changes` of WatchMessagesResponse. The entry caches the result.
    """
    # An entry with one status for all is the same for every selection that includes it.
    key = frozenset[Status]() if len(entry.statuses) == 1 or entry.receipts else statuses
    pieces = entry.forms.get(key)
    if pieces is None:
        pieces = entry.forms[key] = _encode(entry, statuses)
    return pieces


def _encode(entry: Entry, statuses: frozenset[Status]) -> tuple[bytes, ...]:
    changes = _receipts(entry) if entry.receipts else _transitions(entry, statuses)
    slices = (changes[start : start + RESPONSE_CHANGES] for start in range(0, len(changes), RESPONSE_CHANGES))
    return tuple(pb.WatchMessagesResponse(changes=part).SerializeToString() for part in slices)


def _transitions(entry: Entry, statuses: frozenset[Status]) -> list[pb.MessageChange]:
    mailing_id, time = entry.mailing_id, timestamp(entry.at)
    return [
        pb.MessageChange(
            message_id=message_id(mailing_id, client_id),
            mailing_id=mailing_id,
            client_id=client_id,
            status=status,  # type: ignore[arg-type]
            time=time,
        )
        for client_id, status in entry.changes(statuses)
    ]


def _receipts(entry: Entry) -> list[pb.MessageChange]:
    mailing_id, time = entry.mailing_id, timestamp(entry.at)
    rows = zip(entry.client_ids, entry.statuses, entry.receipts, entry.receipt_codes, strict=True)
    return [
        pb.MessageChange(
            message_id=message_id(mailing_id, client_id),
            mailing_id=mailing_id,
            client_id=client_id,
            status=status,  # type: ignore[arg-type]
            time=time,
            receipt=receipt,  # type: ignore[arg-type]
            receipt_code=code,
        )
        for client_id, status, receipt, code in rows
    ]


def encoded_position(token: str, checkpoint: bool = False) -> bytes:
    """Return the other fields of WatchMessagesResponse."""
    return pb.WatchMessagesResponse(resume_token=token, checkpoint=checkpoint).SerializeToString()
