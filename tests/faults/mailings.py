"""A mailing that is large enough to be interrupted, from its import to its last message."""

from __future__ import annotations

from mailing import MailingClient, new_client, new_mailing
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Message
from tests.support.eventually import eventually_sync

COUNT = 20_000


def add_clients(client: MailingClient, count: int) -> None:
    """Import so many clients, who are in the zone of UTC."""
    client.import_clients(new_client(phone=str(70_100_000_000 + n), timezone="UTC") for n in range(count))


def prepare(client: MailingClient, count: int = COUNT, at_most_once: bool = False, max_rate: float = 0.0) -> int:
    """Import clients and begin a mailing to all of them; return its id."""
    add_clients(client, count)
    return client.create_mailing(new_mailing("Hello", snapshot=True, at_most_once=at_most_once, max_rate=max_rate)).id


def completed(client: MailingClient, mailing_id: int) -> None:
    """Return when the mailing is over."""
    eventually_sync(lambda: client.get_mailing(mailing_id).state, lambda state: state == Mailing.STATE_COMPLETED)


def finish(client: MailingClient, mailing_id: int) -> set[int]:
    """Wait for the end of the mailing and return the ids of its messages, all delivered."""
    completed(client, mailing_id)
    messages = list(client.list_messages(mailing_id=mailing_id))
    assert {message.status for message in messages} == {Message.STATUS_DELIVERED}
    assert client.get_mailing(mailing_id).progress.delivered == len(messages)
    return {message.id for message in messages}
