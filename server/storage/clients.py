"""Clients in the database: one by one, page by page, and all of them.

Each write ends with a row of client_changes, in which running mailings find the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg
import orjson

from server.domain.clients import (
    Client,
    ClientDefinition,
    ClientKey,
    OptOutOrigin,
    amended_client,
    check_etag,
)
from server.domain.errors import Kind, NotFound, PhoneTaken, PhoneUnknown, ScopeMissing
from server.domain.events import OptOutSource, client_opted, client_read, records_exported
from server.domain.filters import ClientFilter
from server.domain.pagination import Page, PageRequest, decode_token, encode_token, page_of, query_digest
from server.domain.principals import Scope, caller, source
from server.domain.turns import Turns
from server.domain.validation import MAX_PAGE_SIZE
from server.storage.client_additions import ClientAdditions
from server.storage.client_numbers import exhaustion
from server.storage.client_rows import client_of
from server.storage.database import Database, RaceLost, fetch_piece
from server.storage.events import record
from server.storage.filters import Bound, bind, planned
from server.storage.installation import Installation
from server.storage.phone_memory import PhoneMemory, recall, remember
from server.storage.queries import load_queries
from server.storage.request_ids import CreatingCall, Requests
from server.storage.segment_filters import resolved

_SQL = load_queries("clients.sql")

NO_WINDOW = (None, None)
"""The window of clients without one where the service has no quiet hours."""

EXPORT_PIECE = 250
"""Clients that an export reads from each bucket at once."""

EXPORT_PATIENCE = 30.0
"""Seconds that an export waits for its turn."""


class ClientStore:
    """Reads and writes clients. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation
        self._requests = Requests(installation)
        self._additions = ClientAdditions(database, installation)
        self._exports = Turns("exports at once", 16, 4)

    async def create(self, definition: ClientDefinition, call: CreatingCall | None) -> Client:
        """Add a client, or return the one that the same call added before.

        Raise PhoneTaken, RequestIdReused, and NotFound if that client is gone.
        """
        if not definition.opted_out and (client := await self._additions.add(definition, call)):
            return client

        async def work(connection: asyncpg.Connection) -> Client:
            bucket = self._installation.bucket_of_phone(definition.phone)
            if call is not None and (made := await self._requests.find(connection, call)) is not None:
                return await self._read(connection, made)
            try:
                client_id = await _claim_phone(connection, definition.phone, bucket)
            except PhoneTaken:
                if call is not None and (made := await self._requests.find(connection, call)) is not None:
                    return await self._read(connection, made)  # the same call was ended meanwhile
                raise
            if call is not None and not await self._requests.record(connection, call, client_id):
                raise RaceLost  # the same call is under way twice
            memory = await recall(connection, definition.phone)
            after, source = _with_memory(definition, memory)
            arguments = {**_arguments(after, source), "received": list(memory.received) or None}
            row = await connection.fetchrow(
                *_SQL["insert_client"].bind(bucket=bucket, client_id=client_id, **arguments)
            )
            await _record_change(connection, bucket, client_id)
            if after.opted_out or memory.opted_out:
                await record(connection, client_opted(client_id, bool(after.opted_out), source), bucket=bucket)
            return client_of(row)

        return await self._database.transact(work)

    async def get(self, key: ClientKey) -> Client:
        """Return the client. Raise NotFound, PhoneUnknown."""
        async with self._database.connection() as connection:
            return await self._read(connection, await client_id_of(connection, key))

    async def note_read(self, client_id: int, what: str) -> None:
        """Record that the current caller read what is stored of this client, or their story."""
        bucket = self._installation.bucket_of_client(client_id)
        async with self._database.transaction() as connection:
            await record(connection, client_read(client_id, what), bucket=bucket)

    async def look_up(self, key: ClientKey) -> Client | None:
        """Return the client, None for an id that nobody has. Raise PhoneUnknown."""
        try:
            return await self.get(key)
        except NotFound:
            if isinstance(key, str):
                raise PhoneUnknown from None
            return None

    async def find(self, phone: str) -> ClientDefinition | None:
        """Return the definition of the client with this phone, None without one."""
        async with self._database.connection() as connection:
            found = await connection.fetchrow(*_SQL["find_phone"].bind(phone=phone))
            row = found and await connection.fetchrow(*_SQL["get_client"].bind(**found))
        return client_of(row).definition if row else None

    async def update(
        self, key: ClientKey, etag: str, patch: ClientDefinition, fields: Collection[str], validate_only: bool = False
    ) -> Client:
        """Set `fields` as in `patch`; with `validate_only` return the client as it would be, and change nothing.

        Raise NotFound, PhoneUnknown, StaleEtag, PhoneTaken, and ScopeMissing for a new phone by a caller who may not
        read clients.
        """

        async def work(connection: asyncpg.Connection) -> Client:
            stored = await lock_client(connection, self._installation, key)
            client_id = stored["id"]
            before = client_of(stored)
            check_etag(etag, before.etag)
            after = amended_client(before.definition, patch, fields, self._installation.zones)
            bucket, received, source = stored["bucket"], stored["received"], OptOutSource.API
            if after.phone != before.definition.phone:
                if not caller().may(Scope.CLIENTS_READ):
                    raise ScopeMissing(Scope.CLIENTS_READ)  # the answer would tell which phones there are
                memory = await _move_phone(connection, stored, after.phone)
                received = [*(received or ()), *memory.received] or None
                if "opted_out" not in fields and not after.opted_out:
                    after, source = _with_memory(replace(after, opted_out=None), memory)
            if validate_only:
                return replace(before, definition=after)
            arguments = {**_arguments(after, source), "received": received}
            row = await connection.fetchrow(
                *_SQL["update_client"].bind(bucket=bucket, client_id=client_id, **arguments)
            )
            await _record_change(connection, bucket, client_id)
            if after.opted_out != before.definition.opted_out:
                await record(connection, client_opted(client_id, bool(after.opted_out), source), bucket=bucket)
            return client_of(row)

        return await (self._database.rehearse(work) if validate_only else self._database.transact(work))

    async def list_page(self, chosen: ClientFilter, receiving_now: bool, page: PageRequest) -> Page[Client]:
        """Return a page in the order of ids. Raise InvalidPageToken, and InvalidFields for an unknown segment."""
        digest = _list_digest(chosen, receiving_now)
        (after,) = decode_token(page.token, digest, (0,))
        # Without a filter a page is the next rows; with one it may be the last of millions.
        database = self._database.reads if receiving_now or not chosen.empty else self._database
        async with database.connection() as connection:
            _, chosen = await resolved(connection, chosen)
            bound = await end_of_sample(connection, chosen)
            default = await connection.fetchrow(*_SQL["default_window"].bind()) if receiving_now else NO_WINDOW
            statement = _listing(
                chosen, bound, after=after, limit=page.size + 1, receiving_now=receiving_now, default=default
            )
            async with planned(connection, chosen):
                rows = await connection.fetch(*statement)
        return page_of([*map(client_of, rows)], page.size, lambda one: encode_token(digest, one.id))

    async def export(self, chosen: ClientFilter, after: int = 0) -> AsyncIterator[Sequence[Client]]:
        """Yield every client behind the id `after` in the order of ids, a piece of about a MiB at a time.

        Hold no connection while the caller handles a piece; a client written meanwhile appears as it
        is when its piece is read.
        """
        async with self._exports.turn(source(), EXPORT_PATIENCE):
            async with self._database.transaction() as connection:
                await record(connection, records_exported("clients"))
            async with self._database.reads.connection() as connection:
                _, chosen = await resolved(connection, chosen)
                bound = await end_of_sample(connection, chosen)
            fitting = partial(planned, chosen=chosen)
            while rows := await fetch_piece(
                self._database.reads, _next_of_export(chosen, bound, after), _width, fitting
            ):
                after = rows[-1]["id"]
                yield [client_of(row) for row in rows]

    async def _read(self, connection: asyncpg.Connection, client_id: int) -> Client:
        bucket = self._installation.bucket_of_client(client_id)
        row = await connection.fetchrow(*_SQL["get_client"].bind(bucket=bucket, client_id=client_id))
        if row is None:
            raise NotFound(Kind.CLIENT, client_id)
        return client_of(row)


def _listing(
    chosen: ClientFilter, bound: Bound | None, *, default: Sequence[Any] = NO_WINDOW, **arguments: Any
) -> tuple[Any, ...]:
    """Return the statement of a page; chosen clients are looked up. `default` is the window of clients without one."""
    query = _SQL["list_chosen_clients" if chosen.client_ids else "list_clients"]
    return bind(query, chosen, bound, default_start=default[0], default_length=default[1], **arguments)


def _next_of_export(chosen: ClientFilter, bound: Bound | None, after: int) -> Sequence[Any]:
    """Return the statement of the next piece."""
    if chosen.client_ids:
        return _listing(chosen, bound, after=after, limit=MAX_PAGE_SIZE, receiving_now=False)
    return bind(_SQL["export_clients"], chosen, bound, after=after, limit=EXPORT_PIECE)


async def end_of_sample(connection: asyncpg.Connection, chosen: ClientFilter) -> Bound | None:
    """Return where the sample of a filter ends; None without one, and where it takes all. Read all clients."""
    sample = chosen.sample
    if sample is None:
        return None
    statement = bind(_SQL["end_of_sample"], chosen, seed=sample.seed, size=sample.size)
    async with planned(connection, chosen):
        row = await connection.fetchrow(*statement)
    return row and Bound(sample.seed, row["rank"], row["id"])


async def count_matching(connection: asyncpg.Connection, chosen: ClientFilter) -> int:
    """Return how many clients match now. Read all clients."""
    async with planned(connection, chosen):
        size: int = await connection.fetchval(*bind(_SQL["count_matching"], chosen))
    return min(size, chosen.sample.size) if chosen.sample else size


def _width(row: asyncpg.Record) -> int:
    return 200 + len(row["attributes"])


async def client_id_of(connection: asyncpg.Connection, key: ClientKey) -> int:
    """Return the id of the client that `key` names; one that is an id is not looked up. Raise PhoneUnknown."""
    if isinstance(key, int):
        return key
    row = await connection.fetchrow(*_SQL["find_phone"].bind(phone=key))
    if row is None:
        raise PhoneUnknown
    return int(row["client_id"])


async def lock_client(connection: asyncpg.Connection, installation: Installation, key: ClientKey) -> asyncpg.Record:
    """Return the client's row, locked for the rest of the transaction. Raise NotFound, PhoneUnknown."""
    client_id = await client_id_of(connection, key)
    bucket = installation.bucket_of_client(client_id)
    row = await connection.fetchrow(*_SQL["lock_client"].bind(bucket=bucket, client_id=client_id))
    if isinstance(key, str) and (row is None or row["phone"] != key):
        raise RaceLost  # the phone went to somebody else in between
    if row is None:
        raise NotFound(Kind.CLIENT, client_id)
    return row


def _list_digest(chosen: ClientFilter, receiving_now: bool) -> bytes:
    return query_digest("clients", chosen.as_json(), receiving_now)


async def _claim_phone(connection: asyncpg.Connection, phone: str, bucket: int) -> int:
    """Give the phone to a new client and return its id. Raise PhoneTaken, ClientNumbersExhausted."""
    try:
        with exhaustion():
            client_id: int | None = await connection.fetchval(*_SQL["claim_phone"].bind(phone=phone, bucket=bucket))
    except asyncpg.UniqueViolationError:
        raise RaceLost from None  # somebody took it at the same moment, perhaps for the same call
    if client_id is None:
        raise await _taken(connection, phone)
    return client_id


async def _taken(connection: asyncpg.Connection, phone: str) -> Exception:
    """Return the error for a phone that a client has, with their id for callers who may read clients."""
    row = await connection.fetchrow(*_SQL["find_phone"].bind(phone=phone))
    if row is None:
        return RaceLost()  # the client is gone by now
    return PhoneTaken(row["client_id"] if Scope.CLIENTS_READ in caller().scopes else None)


async def _insert_phone(connection: asyncpg.Connection, phone: str, bucket: int, client_id: int) -> None:
    if await connection.fetchrow(*_SQL["find_phone"].bind(phone=phone)):
        raise await _taken(connection, phone)
    try:
        await connection.execute(*_SQL["insert_phone"].bind(phone=phone, bucket=bucket, client_id=client_id))
    except asyncpg.UniqueViolationError:
        raise RaceLost from None


async def _move_phone(connection: asyncpg.Connection, client: asyncpg.Record, phone: str) -> PhoneMemory:
    """Give the client of this row another phone; return what is known of that one."""
    await connection.execute(*_SQL["delete_phone"].bind(phone=client["phone"]))
    await _insert_phone(connection, phone, client["bucket"], client["id"])
    await remember(connection, client)
    return await recall(connection, phone)


def _with_memory(definition: ClientDefinition, memory: PhoneMemory) -> tuple[ClientDefinition, OptOutSource]:
    """Return the client with the opt-out of the phone, unless it speaks of one itself; and where that comes from."""
    if definition.opted_out is None and memory.opted_out:
        return replace(definition, opted_out=True), OptOutSource.PHONE_MEMORY
    return replace(definition, opted_out=bool(definition.opted_out)), OptOutSource.API


async def _record_change(connection: asyncpg.Connection, bucket: int, client_id: int) -> None:
    await connection.execute(*_SQL["record_client_changes"].bind(bucket=bucket, client_ids=[client_id]))


def _arguments(definition: ClientDefinition, source: OptOutSource) -> dict[str, object]:
    window = definition.receive_window
    origin = OptOutOrigin.API if definition.opted_out and source is OptOutSource.API else OptOutOrigin.UNKNOWN
    return {
        "opt_out_source": int(origin),
        "phone": definition.phone,
        "operator_code": definition.operator_code,
        "tag": definition.tag,
        "timezone": definition.timezone,
        "window_start": window and window.start,
        "window_length": window and window.duration,
        "attributes": orjson.dumps(dict(definition.attributes)).decode(),
        "opted_out": definition.opted_out,
    }
