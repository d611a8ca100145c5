"""Imports clients from a stream: all of them or none, matched by phone.

Rows are staged by COPY in one transaction while the stream is read, and merged at its end. Clients
are locked only then, so that a slow stream blocks nobody. While Postgres copies one chunk, the next
one is prepared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from io import BytesIO
from zlib import crc32

import asyncpg
import orjson

from dispatcher.tasks import cancel
from server.domain.client_import import ImportCounts, ImportOptions, ImportRow, RowErrors
from server.domain.events import clients_imported
from server.storage.client_merge import MERGE_TIMEOUT, ClientMerge
from server.storage.client_numbers import ClientNumbers
from server.storage.database import Database, Installation
from server.storage.events import record
from server.storage.queries import load_queries

_SQL = load_queries("client_import.sql")

CHUNK = 5000
"""Rows per COPY; more are not faster."""

_FLAGS = {None: "\\N", True: "t", False: "f"}
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


_PLAIN = ImportOptions()


class _NothingIsToBeStored(Exception):
    """Ends the transaction of an import that was only to be validated."""

    def __init__(self, counts: ImportCounts) -> None:
        super().__init__()
        self.counts = counts


class ClientImport:
    """Runs imports, at most as many at once as leave half of the pool to others."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._buckets = installation.buckets
        self._numbers = ClientNumbers()
        self._turns = asyncio.Semaphore(max(1, database.size // 2))

    async def run(
        self,
        pieces: AsyncIterator[Sequence[ImportRow | None]],
        options: ImportOptions = _PLAIN,
        errors: RowErrors | None = None,
    ) -> ImportCounts:
        """Store the rows of `pieces`; where a phone comes twice the last row wins. A bad row is None.

        Nothing is stored when `pieces` raises or the caller is cancelled. Raise InvalidFields for bad
        rows, those in `errors` and those that what is stored shows to be bad, unless the options
        say otherwise; DatabaseUnavailable; and Conflict when others kept writing the same clients.
        """
        errors = errors or RowErrors()
        async with self._turns, aclosing(self._chunks(pieces)) as chunks:
            first = await anext(chunks, None)
            if first is None:
                return ImportCounts()
            try:
                async with self._database.transaction() as connection:
                    await connection.execute(*_SQL["create_staging"].bind())
                    await _stage(connection, first, chunks)
                    if not options.returns_errors:
                        errors.check()
                    merge = ClientMerge(connection, options, errors, self._numbers)
                    return await self._merge(merge, connection, options)
            except _NothingIsToBeStored as validated:
                return validated.counts

    async def _merge(self, merge: ClientMerge, connection: asyncpg.Connection, options: ImportOptions) -> ImportCounts:
        try:
            await connection.execute(*_SQL["widen_memory"].bind())
            await connection.execute(*_SQL["sample_little"].bind())
            await connection.execute(*_SQL["measure_staging"].bind(), timeout=MERGE_TIMEOUT)
            counts = await merge.run()
            if options.validate_only:
                raise _NothingIsToBeStored(counts)
            await merge.record()
            await record(connection, clients_imported(counts.created, counts.updated, counts.unchanged))
        except BaseException:
            # Not committed for certain, so that nobody has these numbers.
            self._numbers.give_back(merge.taken)
            raise
        return counts

    async def _chunks(self, pieces: AsyncIterator[Sequence[ImportRow | None]]) -> AsyncGenerator[bytes, None]:
        rows: list[ImportRow | None] = []
        position = 0
        async for piece in pieces:
            rows.extend(piece)
            if len(rows) >= CHUNK:
                yield _copy_text(rows, position, self._buckets)
                position += len(rows)
                rows.clear()
        if rows:
            yield _copy_text(rows, position, self._buckets)


async def _stage(connection: asyncpg.Connection, first: bytes, chunks: AsyncIterator[bytes]) -> None:
    """Copy every chunk, one of them while the next one is read and prepared."""
    copying = asyncio.create_task(_copy(connection, first))
    try:
        async for chunk in chunks:
            await copying
            copying = asyncio.create_task(_copy(connection, chunk))
        await copying
    finally:
        # The connection is not free before the copy has ended.
        await cancel(copying)


async def _copy(connection: asyncpg.Connection, chunk: bytes) -> None:
    await connection.copy_to_table("import_rows", source=BytesIO(chunk))


def _copy_text(rows: Sequence[ImportRow | None], first: int, buckets: int) -> bytes:
    """Return the good rows in COPY's text format. Runs once per client: every call in it counts."""
    lines = []
    for position, row in enumerate(rows, first):
        if row is None:
            continue
        phone, operator_code, tag, timezone, window, attributes, opted_out, spoken = row
        bucket = crc32(phone.encode()) % buckets
        json = _attributes_text(attributes) if attributes else "{}"
        lines.append(
            f"{position}\t{bucket}\t{phone}\t{operator_code}\t{_escaped(tag)}\t{timezone}\t"
            f"{_window_text(window)}\t{json}\t{_FLAGS[opted_out]}\t{spoken}\n"
        )
    return "".join(lines).encode()


@lru_cache(maxsize=4096)
def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


@lru_cache(maxsize=4096)
def _window_text(window: tuple[int, int] | None) -> str:
    if window is None:
        return "\\N\t\\N"
    start, length = window
    return f"{start // 3600:02}:{start // 60 % 60:02}:{start % 60:02}\t{length}"


def _attributes_text(attributes: Mapping[str, str]) -> str:
    # JSON has escaped all other characters with a meaning in COPY.
    return orjson.dumps(attributes).decode().replace("\\", "\\\\")
