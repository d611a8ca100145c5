"""The Python client of the mailing service.

Start with `MailingClient`; the `new_…` functions build requests from plain values, and every
failed call raises `MailingError`. The generated messages and stubs are in `mailing.v1`.
Nothing here imports the server.

    with MailingClient.connect("127.0.0.1:50051") as mailing:
        mailing.import_clients([new_client("70100000001", "Europe/Moscow", tag="news")])
        job = mailing.create_mailing(new_mailing("Hello {phone}", filter=new_filter(tags=["news"])))

`mailing.aio` has the same for asyncio.
"""

from mailing.answers import DeletedMessages
from mailing.builders import (
    new_client,
    new_dispatch_settings,
    new_duration,
    new_filter,
    new_local_time,
    new_mailing,
    new_phone,
    new_schedule,
    new_time_of_day,
    new_timestamp,
    new_window,
)
from mailing.channel import tls_credentials
from mailing.client import MailingClient
from mailing.errors import FieldViolation, MailingError, mailing_errors
from mailing.ids import client_of, mailing_of, message_id
from mailing.watch import LogWatch, MessageWatch

__all__ = [
    "DeletedMessages",
    "FieldViolation",
    "LogWatch",
    "MailingClient",
    "MailingError",
    "MessageWatch",
    "client_of",
    "mailing_errors",
    "mailing_of",
    "message_id",
    "new_client",
    "new_dispatch_settings",
    "new_duration",
    "new_filter",
    "new_local_time",
    "new_mailing",
    "new_phone",
    "new_schedule",
    "new_time_of_day",
    "new_timestamp",
    "new_window",
    "tls_credentials",
]
