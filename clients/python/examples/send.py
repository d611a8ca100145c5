"""Import two clients, send them a mailing and show its progress to the end.

python examples/send.py localhost:50051
"""

import os
import sys

from mailing import MailingClient, new_client, new_filter, new_mailing
from mailing.v1.mailing_pb2 import Mailing

with MailingClient.connect(sys.argv[1], os.environ.get("MAILING_TOKEN")) as service:
    imported = service.import_clients(
        [
            new_client("70100000001", "Europe/Moscow", tag="example", window=("00:00", "00:00")),
            new_client("70100000002", "Asia/Omsk", tag="example"),
        ]
    )
    print("new clients:", imported.created)
    created = service.create_mailing(new_mailing("Hello {phone}", filter=new_filter(tags=["example"]), snapshot=True))
    for state in service.watch_mailing(created.id):
        print(Mailing.State.Name(state.state), state.progress.delivered, "of", state.progress.total)
