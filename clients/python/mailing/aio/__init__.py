"""The Python client of the mailing service for asyncio: the same as in `mailing`, awaited.

    async with MailingClient.connect("127.0.0.1:50051") as mailing:
        await mailing.import_clients([new_client("70100000001", "Europe/Moscow", tag="news")])
        job = await mailing.create_mailing(new_mailing("Hello {phone}", filter=new_filter(tags=["news"])))
        async for state in mailing.watch_mailing(job.id):
            print(state.progress.delivered)

Builders, errors and credentials are those of `mailing`.
"""

from mailing.aio.client import MailingClient
from mailing.aio.watch import LogWatch, MessageWatch

__all__ = ["LogWatch", "MailingClient", "MessageWatch"]
