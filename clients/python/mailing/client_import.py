# Generated from mailing/aio/client_import.py by `make generate`: change that one.

"""The client side of ImportClients: batches from any iterable, all saved or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mailing.errors import mailing_errors
from mailing.import_requests import RequestCutter
from mailing.transport import Items, each, send_all
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import ImportClientsRequest, ImportClientsResponse


def import_in_batches(
    method: Any, clients: Items[Client], options: ImportClientsRequest, progress: Callable[[int], None] | None
) -> ImportClientsResponse:
    """Send all clients in one call, whose first message has the options, and return its response.

    Raise what the iterable raises, or MailingError; in both cases nothing was imported.
    """
    with mailing_errors():
        response: ImportClientsResponse = send_all(method, _requests(clients, options, progress))
    return response


def _requests(
    clients: Items[Client], options: ImportClientsRequest, progress: Callable[[int], None] | None
) -> Iterator[ImportClientsRequest]:
    cutter = RequestCutter(options)
    for client in each(clients):
        if not cutter.has_room(client):
            yield cutter.take()
            if progress is not None:
                progress(cutter.sent)
        cutter.add(client)
    yield cutter.take()
    if progress is not None:
        progress(cutter.sent)
