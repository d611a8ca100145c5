"""Rows of clients as clients."""

from __future__ import annotations

import asyncpg
import orjson

from server.domain.clients import Client, ClientDefinition, OptOut, OptOutOrigin, ReceiveWindow


def client_of(row: asyncpg.Record) -> Client:
    """Return the client of a row."""
    start = row["window_start"]
    definition = ClientDefinition(
        phone=row["phone"],
        timezone=row["timezone"],
        operator_code=row["operator_code"],
        tag=row["tag"],
        receive_window=None if start is None else ReceiveWindow(start, row["window_length"]),
        attributes=orjson.loads(row["attributes"]),
        opted_out=row["opted_out"],
    )
    return Client(row["id"], definition, row["version"], row["created_at"], row["updated_at"], _opt_out_of(row))


def _opt_out_of(row: asyncpg.Record) -> OptOut | None:
    if not row["opted_out"]:
        return None
    origin = OptOutOrigin(row["opt_out_source"])
    return OptOut(row["opt_out_at"], origin, row["opt_out_word"], row["opt_out_endpoint"])
