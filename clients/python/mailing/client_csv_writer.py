"""Clients as CSV, written: the format that `ClientReader` reads."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import TextIO

from mailing.builders import window_times
from mailing.client_columns import ATTRIBUTE_PREFIX, COLUMNS
from mailing.phones import is_national
from mailing.v1.client_pb2 import Client

_SPOOL_BYTES = 16 << 20
_LENGTH = struct.Struct("<I")
_NO_WINDOW = ("", "")


def write_clients(clients: Iterable[Client], out: TextIO) -> int:
    """Write clients as CSV and return how many.

    The columns depend on all clients, so these are kept in a temporary file (in memory while
    they are few) until the last one is known.
    """
    with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        names: dict[str, None] = {}
        count = 0
        for client in clients:
            count += 1
            names.update(dict.fromkeys(client.attributes))
            body = client.SerializeToString()
            spool.write(_LENGTH.pack(len(body)) + body)
        spool.seek(0)
        attributes = sorted(names)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*COLUMNS, *(ATTRIBUTE_PREFIX + name for name in attributes)])
        # The csv module leaves a lone carriage return bare, which reads as the end of a row.
        quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for client in _spooled(spool):
            cells = _cells(client, attributes)
            (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    return count


def _cells(client: Client, attributes: list[str]) -> list[str]:
    start, end = window_times(client.receive_window) if client.HasField("receive_window") else _NO_WINDOW
    opted_out = ("true" if client.opted_out else "false") if client.HasField("opted_out") else ""
    phone = f"+{client.phone}" if is_national(client.phone) else client.phone
    known = [phone, client.operator_code, client.tag, client.timezone, start, end, opted_out]
    return known + [client.attributes.get(name, "") for name in attributes]


def _spooled(spool: SpooledTemporaryFile[bytes]) -> Iterator[Client]:
    while head := spool.read(_LENGTH.size):
        yield Client.FromString(spool.read(_LENGTH.unpack(head)[0]))
