"""What a phone's deleted client leaves behind: the opt-out, and which open mailings it got.

A client who is added with the phone again takes it over, so that deleting and importing a phone
neither undoes an opt-out nor repeats a mailing. Only a keyed digest of the phone is stored, and only
where there is something to remember; it is forgotten after a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("phone_memory.sql")


@dataclass(frozen=True, slots=True)
class PhoneMemory:
    """What is known of a phone: whether its client opted out, and the ids of mailings that it got."""

    opted_out: bool = False
    received: Sequence[int] = ()


async def remember(connection: asyncpg.Connection, client: asyncpg.Record) -> None:
    """Remember what is to be known of the phone of this row of clients, which it is about to lose or has lost."""
    key = {"bucket": client["bucket"], "client_id": client["id"]}
    received = await connection.fetchval(*_SQL["list_received"].bind(**key, received=client["received"] or []))
    if client["opted_out"] or received:
        memory = {"opted_out": client["opted_out"], "received": received}
        await connection.execute(*_SQL["remember_phone"].bind(phone=client["phone"], **memory))


async def remember_opt_out(database: Database, phone: str) -> None:
    """Remember that the person with this phone opted out, for the client who gets it. Raise DatabaseUnavailable."""
    await database.execute(*_SQL["remember_phone"].bind(phone=phone, opted_out=True, received=[]))


async def recall(connection: asyncpg.Connection, phone: str) -> PhoneMemory:
    """Return what is known of a phone, and forget it: its new client keeps it from now on."""
    row = await connection.fetchrow(*_SQL["recall_phone"].bind(phone=phone))
    return PhoneMemory() if row is None else PhoneMemory(row["opted_out"], row["received"])


async def forget_old(database: Database, keep: timedelta) -> None:
    """Forget what has been remembered for longer than that. Raise DatabaseUnavailable."""
    await database.execute(*_SQL["forget_old"].bind(keep=keep))
