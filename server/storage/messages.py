"""Messages and their failed attempts, read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

import asyncpg
import orjson

from dispatcher.model.states import ErrorClass, Reason, Status
from server.domain.clients import ClientDefinition
from server.domain.errors import Kind, NotFound
from server.domain.events import records_exported
from server.domain.messages import Attempt, ExportedMessage, Message, MessageQuery, split_message_id
from server.domain.pagination import Page, PageRequest, decode_token, encode_token, page_of, query_digest
from server.domain.receipts import Receipt
from server.storage.clients import client_id_of
from server.storage.database import Database, fetch_piece
from server.storage.events import record
from server.storage.installation import Installation
from server.storage.queries import load_queries
from server.storage.receipts import ReceiptStore

_SQL = load_queries("messages.sql")
_MAILINGS = load_queries("mailings.sql")

EXPORT_PIECE = 250
"""Messages that an export reads from each bucket at once."""

Exported = Sequence[ExportedMessage]


class MessageStore:
    """Reads messages. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation
        self._buckets = range(installation.buckets)
        self._receipts = ReceiptStore(database, installation)

    async def get(self, identity: int) -> Message:
        """Return the message with this id. Raise NotFound."""
        async with self._database.connection() as connection:
            message = await self._read(connection, identity)
        return replace(message, receipt=await self._receipts.read_one(identity))

    async def list_attempts(self, identity: int) -> Sequence[Attempt]:
        """Return the failed attempts of a message, in order. Raise NotFound."""
        async with self._database.connection() as connection:
            await self._read(connection, identity)
            rows = await connection.fetch(*_SQL["list_attempts"].bind(**self._key(identity)))
        return [attempt_of(row) for row in rows]

    async def list_page(self, query: MessageQuery, page: PageRequest) -> Page[Message]:
        """Return a page, by mailing and within it by client.

        Raise InvalidPageToken, NotFound for a mailing that does not exist, and PhoneUnknown.
        """
        asked = [list(query.receipts)] if query.receipts else []
        digest = query_digest("messages", query.mailing_id, query.client, list(query.statuses), *asked)
        mailing, client = decode_token(page.token, digest, (0, 0))
        chosen = {"statuses": list(query.statuses) or None, "receipts": list(query.receipts) or None}
        limit = page.size + 1
        # One client's messages are few; those of a mailing in some statuses may be the last of millions.
        narrowed = query.statuses or query.receipts

        async def find(database: Database) -> list[asyncpg.Record]:
            async with database.connection() as connection:
                if query.mailing_id:
                    await _check_mailing(connection, query.mailing_id)
                if query.client:
                    client_id = await client_id_of(connection, query.client)
                    statement = _SQL["list_messages_of_client"].bind(
                        bucket=self._installation.bucket_of_client(client_id),
                        client_id=client_id,
                        mailing_id=query.mailing_id,
                        after=mailing,
                        limit=limit,
                        **chosen,
                    )
                else:
                    statement = _SQL["list_messages_of_mailing"].bind(
                        buckets=self._buckets,
                        mailing_id=query.mailing_id,
                        after=client,
                        limit=limit,
                        with_clients=False,
                        **chosen,
                    )
                rows: list[asyncpg.Record] = await connection.fetch(*statement)
                return rows

        rows = await (self._database.read(find) if narrowed and not query.client else find(self._database))
        behind = partial(_token_behind, digest)
        found = page_of([*map(message_of, rows)], page.size, behind)
        return replace(found, records=tuple(await self._with_receipts(found.records)))

    async def phones(self, messages: Sequence[Message]) -> dict[int, str]:
        """Return the phones of the messages' clients, by client; deleted ones have none."""
        ids = list({message.client_id for message in messages})
        if not ids:
            return {}
        buckets = [self._installation.bucket_of_client(client_id) for client_id in ids]
        rows = await self._database.fetch(*_SQL["list_phones"].bind(buckets=buckets, ids=ids))
        return {row["id"]: row["phone"] for row in rows}

    async def export(
        self, mailing_id: int, statuses: Sequence[Status], receipts: Sequence[Receipt], after: int
    ) -> AsyncIterator[Exported]:
        """Yield messages of a mailing, in the order of clients behind `after`, a piece of about a MiB at a time."""
        async with self._database.transaction() as connection:
            await record(connection, records_exported("messages", mailing_id))
        while True:
            statement = _SQL["export_messages"].bind(
                buckets=self._buckets,
                mailing_id=mailing_id,
                statuses=list(statuses) or None,
                receipts=list(receipts) or None,
                after=after,
                limit=EXPORT_PIECE,
                with_clients=True,
            )
            rows = await fetch_piece(self._database.reads, statement, _width)
            if not rows:
                return
            after = rows[-1]["client_id"]
            messages = await self._with_receipts([message_of(row) for row in rows])
            yield [ExportedMessage(one, _recipient_of(row)) for one, row in zip(messages, rows, strict=True)]

    async def _with_receipts(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with what their gateways reported."""
        known = await self._receipts.read(message.id for message in messages)
        return [replace(one, receipt=known[one.id]) if one.id in known else one for one in messages]

    async def _read(self, connection: asyncpg.Connection, identity: int) -> Message:
        row = await connection.fetchrow(*_SQL["get_message"].bind(**self._key(identity)))
        if row is None:
            raise NotFound(Kind.MESSAGE, identity)
        return message_of(row)

    def _key(self, identity: int) -> dict[str, int]:
        mailing_id, client_id = split_message_id(identity)
        bucket = self._installation.bucket_of_client(client_id)
        return {"bucket": bucket, "mailing_id": mailing_id, "client_id": client_id}


def _width(row: asyncpg.Record) -> int:
    return 200 + len(row["attributes"] or "")


def _token_behind(digest: bytes, message: Message) -> str:
    return encode_token(digest, message.mailing_id, message.client_id)


async def _check_mailing(connection: asyncpg.Connection, mailing_id: int) -> None:
    if await connection.fetchval(*_MAILINGS["find_state"].bind(mailing_id=mailing_id)) is None:
        raise NotFound(Kind.MAILING, mailing_id)


def message_of(row: asyncpg.Record) -> Message:
    """Return the message of a row. The code of a delivered one is 0 and not stored."""
    status = Status(row["status"])
    code = row["endpoint_code"]
    return Message(
        mailing_id=row["mailing_id"],
        client_id=row["client_id"],
        status=status,
        reason=Reason(row["reason"]),
        attempts=row["attempts"],
        due_at=row["due_at"],
        settled_at=row["settled_at"],
        endpoint_status=row["endpoint_status"] or 0,
        endpoint_code=0 if code is None and status is Status.DELIVERED else code,
        duration=_milliseconds(row["duration_ms"]),
        created_at=row["created_at"],
    )


def _recipient_of(row: asyncpg.Record) -> ClientDefinition | None:
    if row["phone"] is None:
        return None
    attributes = orjson.loads(row["attributes"])
    return ClientDefinition(row["phone"], row["timezone"], row["operator_code"], row["tag"], attributes=attributes)


def attempt_of(row: asyncpg.Record) -> Attempt:
    """Return the failed attempt of a row."""
    return Attempt(
        number=row["number"],
        at=row["at"],
        endpoint=row["endpoint"],
        endpoint_status=row["endpoint_status"] or 0,
        endpoint_code=row["endpoint_code"],
        error_class=ErrorClass(row["error_class"]),
        duration=timedelta(milliseconds=row["duration_ms"]),
        response_excerpt=row["response_excerpt"],
    )


def _milliseconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(milliseconds=value)
