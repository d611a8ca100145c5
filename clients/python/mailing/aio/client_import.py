"""The client side of ImportClients: batches from any iterable, all saved or none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from mailing.aio.transport import Items, each, send_all
from mailing.errors import mailing_errors
from mailing.import_requests import RequestCutter
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import ImportClientsRequest, ImportClientsResponse


async def import_in_batches(
    method: Any, clients: Items[Client], options: ImportClientsRequest, progress: Callable[[int], None] | None
) -> ImportClientsResponse:
    """Send all clients in one call, whose first message has the options, and return its response.

    Raise what the iterable raises, or MailingError; in both cases nothing was imported.
    """
    with mailing_errors():
        response: ImportClientsResponse = await send_all(method, _requests(clients, options, progress))
    return response


async def _requests(
    clients: Items[Client], options: ImportClientsRequest, progress: Callable[[int], None] | None
) -> AsyncIterator[ImportClientsRequest]:
    cutter = RequestCutter(options)
    async for client in each(clients):
        if not cutter.has_room(client):
            yield cutter.take()
            if progress is not None:
                progress(cutter.sent)
        cutter.add(client)
    yield cutter.take()
    if progress is not None:
        progress(cutter.sent)
