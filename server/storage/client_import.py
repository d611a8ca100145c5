"""Imports clients from a stream: all of them or none, matched by phone.

Rows are spooled into a file while the stream is read, so that nothing scarce is held while its caller
thinks. At the end of the stream they are staged by COPY and merged in one transaction, whose connection
is one of those for many rows. What a spool may take is bounded, for an import and for all together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from tempfile import SpooledTemporaryFile
from zlib import crc32

import asyncpg
import orjson

from server.domain.client_import import ImportCounts, ImportOptions, ImportRow, RowErrors
from server.domain.errors import ImportTooLarge, TooManyWaiting
from server.domain.events import clients_imported
from server.domain.principals import source
from server.domain.turns import Turns
from server.storage.client_merge import MERGE_TIMEOUT, ClientMerge
from server.storage.client_numbers import ClientNumbers
from server.storage.database import Database
from server.storage.events import record
from server.storage.installation import Installation
from server.storage.queries import load_queries

_SQL = load_queries("client_import.sql")

MAX_ROWS = 20_000_000
MAX_BYTES = 4 << 30
"""How much one import may have; the bytes are those of its rows as COPY takes them."""

MAX_SPOOLED = 8 << 30
"""Bytes of all imports together."""

_IN_MEMORY = 1 << 20
"""Bytes of an import that need no file."""

PATIENCE = 120.0
"""Seconds that an import waits for its turn."""

_FLAGS = {None: "\\N", True: "t", False: "f"}
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


_PLAIN = ImportOptions()


class _NothingIsToBeStored(Exception):
    """Ends the transaction of an import that was only to be validated."""

    def __init__(self, counts: ImportCounts) -> None:
        super().__init__()
        self.counts = counts


class ClientImport:
    """Runs imports: 16 at once are read, 4 of a caller."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._buckets = installation.buckets
        self._numbers = ClientNumbers()
        self._turns = Turns("imports at once", 16, 4)
        self._spooled = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a place among the imports that are read, from before the first message. Raise TooManyWaiting."""
        async with self._turns.turn(source(), PATIENCE):
            yield

    async def run(
        self,
        pieces: AsyncIterator[Sequence[ImportRow | None]],
        options: ImportOptions = _PLAIN,
        errors: RowErrors | None = None,
    ) -> ImportCounts:
        """Store the rows of `pieces`; where a phone comes twice the last row wins. A bad row is None.

        Nothing is stored when `pieces` raises or the caller is cancelled. Raise InvalidFields for bad
        rows, those in `errors` and those that what is stored shows to be bad, unless the options
        say otherwise; ImportTooLarge and TooManyWaiting; DatabaseUnavailable; and Conflict when others
        kept writing the same clients.
        """
        errors = errors or RowErrors()
        spooled = 0
        with SpooledTemporaryFile(_IN_MEMORY) as spool:
            try:
                async for size in self._spool(pieces, spool):
                    spooled += size
                    self._spooled += size
                if not options.returns_errors:
                    errors.check()
                return await self._store(spool, options, errors) if spooled or errors.rows else ImportCounts()
            finally:
                self._spooled -= spooled

    async def _spool(
        self, pieces: AsyncIterator[Sequence[ImportRow | None]], spool: SpooledTemporaryFile[bytes]
    ) -> AsyncIterator[int]:
        """Write every row into the spool, and yield the bytes of each piece."""
        position = size = 0
        async for piece in pieces:
            text = _copy_text(piece, position, self._buckets)
            position += len(piece)
            size += len(text)
            if position > MAX_ROWS or size > MAX_BYTES:
                raise ImportTooLarge(MAX_ROWS, MAX_BYTES)
            if self._spooled + len(text) > MAX_SPOOLED:
                raise TooManyWaiting("bytes of imports", MAX_SPOOLED)
            spool.write(text)
            yield len(text)

    async def _store(
        self, spool: SpooledTemporaryFile[bytes], options: ImportOptions, errors: RowErrors
    ) -> ImportCounts:
        """Stage and merge what the spool has."""
        spool.seek(0)
        try:
            async with self._database.scans.transaction(PATIENCE) as connection:
                await connection.execute(*_SQL["create_staging"].bind())
                await connection.copy_to_table("import_rows", source=spool, timeout=MERGE_TIMEOUT)
                return await self._merge(ClientMerge(connection, options, errors, self._numbers), connection, options)
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
