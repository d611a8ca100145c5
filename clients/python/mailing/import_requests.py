"""The stream messages of an import: at most 500 clients and 1 MiB each."""

from __future__ import annotations

from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import ImportClientsRequest

BATCH_SIZE = 500
"""Clients per stream message: sent one by one they would be ninety times slower."""

BATCH_BYTES = 1 << 20

_FRAME = 6
"""Bytes before a client: its tag and its length."""


class RequestCutter:
    """Gathers clients into requests, of which the first one has the options of the import."""

    def __init__(self, options: ImportClientsRequest) -> None:
        self._next = ImportClientsRequest()
        self._next.CopyFrom(options)
        self._size = options.ByteSize()
        self.sent = 0
        """How many clients are in the requests taken so far."""

    def has_room(self, client: Client) -> bool:
        """Return whether the client fits into the next request."""
        count = len(self._next.clients)
        return not count or (count < BATCH_SIZE and self._size + client.ByteSize() + _FRAME <= BATCH_BYTES)

    def add(self, client: Client) -> None:
        """Add a client to the next request."""
        self._next.clients.append(client)
        self._size += client.ByteSize() + _FRAME

    def take(self) -> ImportClientsRequest:
        """Return the next request and begin another."""
        taken, self._next, self._size = self._next, ImportClientsRequest(), 0
        self.sent += len(taken.clients)
        return taken
