"""The export of clients into a file of their own format, which stays out of memory however long it is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile, mkstemp
from typing import IO

from starlette.concurrency import run_in_threadpool

from mailing.client_csv import write_clients
from mailing.v1.client_pb2 import Client, ClientFilter
from mailing.v1.client_service_pb2 import ExportClientsRequest
from server.console.visit import Visit

_LENGTH = struct.Struct("<I")


async def exported(visit: Visit, wanted: ClientFilter, filter_text: str) -> Path:
    """Return a new file with all clients that match, to be removed by the caller. Raise MailingError."""
    request = ExportClientsRequest(filter_text=filter_text) if filter_text else ExportClientsRequest(filter=wanted)
    with TemporaryFile() as spool:
        async for answer in visit.service.stream(visit.service.clients.ExportClients, request, visit.who):
            for client in answer.clients:
                body = client.SerializeToString()
                spool.write(_LENGTH.pack(len(body)) + body)
        return await run_in_threadpool(_written, spool)


def _written(spool: IO[bytes]) -> Path:
    spool.seek(0)
    number, name = mkstemp(prefix="clients-", suffix=".csv")
    with open(number, "w", encoding="utf-8", newline="") as out:
        write_clients(_clients(spool), out)
    return Path(name)


def _clients(spool: IO[bytes]) -> Iterator[Client]:
    while head := spool.read(_LENGTH.size):
        yield Client.FromString(spool.read(_LENGTH.unpack(head)[0]))
