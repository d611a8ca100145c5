"""The client side of ImportClients: batches of 500 from any iterable, all saved or none.

gRPC reads the requests in its own thread and only logs what they raise; so an error of the
iterable is kept here, the call is cancelled, and the error itself is raised to the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import islice

import grpc

from mailing.errors import MailingError
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import ImportClientsRequest, ImportClientsResponse
from mailing.v1.client_service_pb2_grpc import ClientServiceStub

BATCH_SIZE = 500
"""Clients per stream message: sent one by one they would be ninety times slower."""


def import_in_batches(
    stub: ClientServiceStub, clients: Iterable[Client], options: ImportClientsRequest
) -> ImportClientsResponse:
    """Send all clients in one call, whose first message has the options, and return its response.

    Raise what the iterable raises, or MailingError; in both cases nothing was imported.
    """
    requests = _Requests(clients, options)
    call = stub.ImportClients.future(iter(requests))
    requests.attach(call)
    try:
        return call.result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        if requests.error is not None:
            raise requests.error from None
        if isinstance(error, grpc.RpcError):
            raise MailingError.from_rpc_error(error) from error
        raise MailingError(grpc.StatusCode.CANCELLED, message="the import was cancelled") from error
    finally:
        call.cancel()


class _Requests:
    """The stream's messages; cancels the call when the iterable fails."""

    def __init__(self, clients: Iterable[Client], options: ImportClientsRequest) -> None:
        self.error: BaseException | None = None
        self._clients = clients
        self._first = options
        self._attached = threading.Event()

    def attach(self, call: grpc.Future[ImportClientsResponse]) -> None:
        self._call = call
        self._attached.set()

    def __iter__(self) -> Iterator[ImportClientsRequest]:
        clients = iter(self._clients)
        request = ImportClientsRequest()
        request.CopyFrom(self._first)
        try:
            while batch := list(islice(clients, BATCH_SIZE)):
                request.clients.extend(batch)
                yield request
                request = ImportClientsRequest()
        except GeneratorExit:
            raise
        except BaseException as error:
            # Cancelled before the generator ends: otherwise the end would complete the
            # stream and import what came before the error.
            self.error = error
            self._attached.wait()
            self._call.cancel()
