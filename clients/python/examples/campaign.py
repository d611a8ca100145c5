"""Send a mailing to two clients and wait for its end: `python campaign.py 127.0.0.1:50051`.

A token goes into MAILING_TOKEN.
"""

from __future__ import annotations

import os
import sys

from mailing import MailingClient, MailingError, new_client, new_filter, new_mailing
from mailing.v1.message_pb2 import Message


def main(address: str) -> None:
    """Import, create, watch, and say whom it did not reach."""
    with MailingClient.connect(address, os.environ.get("MAILING_TOKEN")) as service:
        people = [new_client(phone, "Europe/Moscow", tag="python") for phone in ("79161234567", "79161234568")]
        service.import_clients(people)
        mailing = service.create_mailing(
            new_mailing("Hello {attributes.name|friend}", filter=new_filter(tags=["python"]), snapshot=True)
        )
        for state in service.watch_mailing(mailing.id):
            print(f"{state.progress.delivered} of {state.progress.total} delivered")
        for message in service.list_messages(mailing.id):
            if message.status != Message.STATUS_DELIVERED:
                print(f"{message.client_id}: {Message.Reason.Name(message.reason)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except MailingError as error:
        sys.exit(str(error))
