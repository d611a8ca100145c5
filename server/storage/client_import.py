"""Imports clients from a stream: all of them or none, matched by phone.

Rows are staged by COPY in one transaction while the stream is read, and merged at its end. Clients
are locked only then, so that a slow stream blocks nobody. While Postgres copies one chunk, the next
one is prepared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from zlib import crc32

import asyncpg
import orjson

from dispatcher.tasks import cancel
from server.domain.clients import ImportRow
from server.domain.errors import Conflict
from server.domain.events import clients_imported
from server.storage.database import RACES, TRIES, Database, Installation, RaceLost
from server.storage.events import record
from server.storage.queries import load_queries

_SQL = load_queries("client_import.sql")

CHUNK = 5000
"""Rows per COPY; more are not faster."""

MERGE_TIMEOUT = 900.0
"""Seconds that one statement of the merge may take; ten million rows take minutes."""

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What an import did. Rows that a later row replaced count as updated."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0


class ClientImport:
    """Runs imports, at most as many at once as leave half of the pool to others."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._buckets = installation.buckets
        self._turns = asyncio.Semaphore(max(1, database.size // 2))

    async def run(self, pieces: AsyncIterator[Sequence[ImportRow]]) -> ImportCounts:
        """Store the checked rows of `pieces`; of two rows with the same phone the last one wins.

        Nothing is stored when `pieces` raises or the caller is cancelled. Raise
        DatabaseUnavailable, and Conflict when others kept writing the same clients.
        """
        async with self._turns, aclosing(self._chunks(pieces)) as chunks:
            first = await anext(chunks, None)
            if first is None:
                return ImportCounts()
            async with self._database.transaction() as connection:
                await connection.execute(*_SQL["create_staging"].bind())
                await _stage(connection, first, chunks)
                await connection.execute(*_SQL["widen_memory"].bind())
                await connection.execute(*_SQL["sample_little"].bind())
                await connection.execute(*_SQL["measure_staging"].bind(), timeout=MERGE_TIMEOUT)
                counts = await _merge(connection)
                await _record_changes(connection)
                await record(connection, clients_imported(counts.created, counts.updated, counts.unchanged))
                return counts

    async def _chunks(self, pieces: AsyncIterator[Sequence[ImportRow]]) -> AsyncGenerator[bytes, None]:
        rows: list[ImportRow] = []
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


async def _merge(connection: asyncpg.Connection) -> ImportCounts:
    """Merge the staged rows; repeat that when others wrote the same clients meanwhile."""
    for _ in range(TRIES):
        try:
            async with connection.transaction():  # a savepoint
                return await _merge_once(connection)
        except (RaceLost, *RACES):
            continue
    raise Conflict


async def _merge_once(connection: asyncpg.Connection) -> ImportCounts:
    await connection.execute(*_SQL["create_latest"].bind(), timeout=MERGE_TIMEOUT)
    found = await connection.fetchrow(*_SQL["count_latest"].bind(), timeout=MERGE_TIMEOUT)
    if found["fresh"] and not await _claim_phones(connection, found["fresh"]):
        found = await connection.fetchrow(*_SQL["count_latest"].bind(), timeout=MERGE_TIMEOUT)
    rows, phones, fresh, changed = found["staged"], found["phones"], found["fresh"], found["changed"]
    if fresh:
        await connection.execute(*_SQL["insert_fresh_clients"].bind(), timeout=MERGE_TIMEOUT)
    if changed and changed != await connection.fetchval(*_SQL["update_changed_clients"].bind(), timeout=MERGE_TIMEOUT):
        raise RaceLost
    return ImportCounts(created=fresh, updated=changed + rows - phones, unchanged=phones - fresh - changed)


async def _claim_phones(connection: asyncpg.Connection, fresh: int) -> bool:
    """Insert the phones of the `fresh` rows; return whether nobody else had inserted one."""
    try:
        async with connection.transaction():
            await connection.execute(*_SQL["insert_fresh_phones"].bind(), timeout=MERGE_TIMEOUT)
            return True
    except asyncpg.UniqueViolationError:
        await _claim_what_is_left(connection, fresh)
        return False


async def _claim_what_is_left(connection: asyncpg.Connection, fresh: int) -> None:
    """Insert the phones that others have not taken; let the other rows update the clients that have them.

    An inserted phone stays ours until the end, so every turn leaves fewer.
    """
    claimed = 0
    for _ in range(TRIES):
        claimed += await _claim_once(connection)
        if claimed == fresh:
            return
        fresh -= _rows(await connection.execute(*_SQL["adopt_taken_phones"].bind(), timeout=MERGE_TIMEOUT))
        if claimed == fresh:
            return
    raise RaceLost


async def _claim_once(connection: asyncpg.Connection) -> int:
    return _rows(await connection.execute(*_SQL["claim_fresh_phones"].bind(), timeout=MERGE_TIMEOUT))


def _rows(tag: str) -> int:
    """Return the number of rows in a command's tag, such as `INSERT 0 5`."""
    return int(tag.rpartition(" ")[2])


async def _record_changes(connection: asyncpg.Connection) -> None:
    await connection.execute(*_SQL["create_touched"].bind())
    await connection.execute(*_SQL["keep_touched_plain"].bind())
    await connection.execute(*_SQL["fill_touched"].bind(), timeout=MERGE_TIMEOUT)
    for row in await connection.fetch(*_SQL["list_touched_buckets"].bind()):
        await connection.execute(*_SQL["record_imported_changes"].bind(bucket=row["bucket"]))


def _copy_text(rows: Sequence[ImportRow], position: int, buckets: int) -> bytes:
    """Return the rows in COPY's text format. Its loop runs once per client, so every call in it costs."""
    lines = []
    for phone, operator_code, tag, timezone, window, attributes, opted_out in rows:
        bucket = crc32(phone.encode()) % buckets
        json = _attributes_text(attributes) if attributes else "{}"
        lines.append(
            f"{position}\t{bucket}\t{phone}\t{operator_code}\t{_escaped(tag)}\t{timezone}\t"
            f"{_window_text(window)}\t{json}\t{'t' if opted_out else 'f'}\n"
        )
        position += 1
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
