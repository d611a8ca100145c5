"""Deletes a client and ends their unsent messages, in one transaction.

A message whose batch a dispatcher holds, or held until its lease ran out, may have been sent. It
is left to that dispatcher or to the next one, which finds the client gone and ends the message
itself. Locks are taken in the order of the whole project: client, batches, bucket, messages,
counts, journal, log. What the phone has to keep is remembered: see `phone_memory`.
"""

from __future__ import annotations

import asyncpg

from server.domain.clients import ClientKey, check_etag
from server.domain.errors import NotFound, PhoneUnknown
from server.domain.events import client_deleted
from server.storage.client_rows import client_of
from server.storage.clients import lock_client
from server.storage.database import Database, RaceLost
from server.storage.events import record
from server.storage.installation import Installation
from server.storage.phone_memory import remember
from server.storage.queries import load_queries

_CLIENTS = load_queries("clients.sql")
_SQL = load_queries("client_deletion.sql")


class ClientDeletion:
    """Removes clients. May raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation

    async def delete(self, key: ClientKey, etag: str, allow_missing: bool = False) -> int:
        """Remove the client; return how many messages ended CANCELLED with them.

        Raise StaleEtag and, unless a missing client is allowed, NotFound and PhoneUnknown.
        """

        async def work(connection: asyncpg.Connection) -> int:
            row = await lock_client(connection, self._installation, key)
            bucket, client_id = row["bucket"], row["id"]
            check_etag(etag, client_of(row).etag)
            await connection.execute(*_CLIENTS["delete_client"].bind(bucket=bucket, client_id=client_id))
            await connection.execute(*_CLIENTS["delete_phone"].bind(phone=row["phone"]))
            cancelled = await _cancel_unsent(connection, bucket, client_id)
            await remember(connection, row)
            await connection.execute(*_CLIENTS["record_client_changes"].bind(bucket=bucket, client_ids=[client_id]))
            await record(connection, client_deleted(client_id, cancelled), bucket=bucket)
            return cancelled

        try:
            return await self._database.transact(work)
        except (NotFound, PhoneUnknown):
            if allow_missing:
                return 0
            raise


async def _cancel_unsent(connection: asyncpg.Connection, bucket: int, client_id: int) -> int:
    waiting = await connection.fetch(*_SQL["list_pending_mailings"].bind(bucket=bucket, client_id=client_id))
    taken = [(row["id"], await _take_from_batch(connection, bucket, row["id"], client_id)) for row in waiting]
    batches = {mailing_id: batch for mailing_id, batch in taken if batch is not None}
    mailings = list(batches)
    if not mailings:
        return 0
    last = await connection.fetchval(*_SQL["take_change_numbers"].bind(bucket=bucket, count=len(mailings)))
    messages = {"bucket": bucket, "mailing_ids": mailings, "client_id": client_id}
    for mailing_id, batch in batches.items():
        if batch["fresh"]:
            times = {"created_at": batch["created_at"], "due_at": batch["due_at"]}
            row = _SQL["write_message"].bind(bucket=bucket, mailing_id=mailing_id, client_id=client_id, **times)
            await connection.execute(*row)
    done = await connection.execute(*_SQL["cancel_messages_of_client"].bind(**messages))
    if done != f"UPDATE {len(mailings)}":
        raise RaceLost  # a number without an entry would be a gap in the change feed
    await connection.execute(*_SQL["count_cancelled"].bind(bucket=bucket, mailing_ids=mailings))
    await connection.execute(*_SQL["count_attempts_of_cancelled"].bind(**messages))
    await connection.execute(*_SQL["record_cancelled_changes"].bind(last=last, **messages))
    return len(mailings)


async def _take_from_batch(
    connection: asyncpg.Connection, bucket: int, mailing_id: int, client_id: int
) -> asyncpg.Record | None:
    """Take the client's message out of its open batch; return the batch, None if the message may not be ended here.

    A batch without other pending messages is removed.
    """
    key = {"bucket": bucket, "mailing_id": mailing_id}
    for batch in await connection.fetch(*_SQL["lock_open_batch"].bind(**key, client_id=client_id)):
        others = await _others_pending(connection, key, batch, client_id)
        if others is None:
            continue
        if not others:
            await connection.execute(*_SQL["delete_batch"].bind(**key, batch_no=batch["no"]))
        elif batch["fresh"]:
            statement = _SQL["take_from_fresh_batch"].bind(**key, client_id=client_id, batch_no=batch["no"])
            await connection.execute(*statement)
        return batch
    return None


async def _others_pending(
    connection: asyncpg.Connection, key: dict[str, int], batch: asyncpg.Record, client_id: int
) -> bool | None:
    """Return whether other messages of a batch are pending too; None if the client's is not.

    A batch that is not fresh keeps the ids of messages that ended: a claim skips them.
    """
    ids = batch["client_ids"]
    if batch["fresh"]:
        return len(ids) > 1
    statement = _SQL["list_pending_of_batch"].bind(**key, client_ids=ids, first_id=min(ids), last_id=max(ids))
    pending = {row["client_id"] for row in await connection.fetch(*statement)}
    return len(pending) > 1 if client_id in pending else None
