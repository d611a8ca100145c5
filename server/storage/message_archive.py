"""Writes the messages of a mailing, and their failed attempts, to compressed CSV files before they are removed.

A file appears under its name only when all of it is on the disk: what is there is whole. Nothing of clients is
written but their ids. Writing twice writes the same.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from pathlib import Path
from uuid import uuid4

from dispatcher.model.states import ErrorClass, Reason, Status
from server.domain.receipts import Receipt
from server.storage.database import Database
from server.storage.queries import Query, load_queries

KINDS = {"messages": "archived_messages", "attempts": "archived_attempts"}
"""What is written of a mailing, a file each, and the statement that reads it."""

_SQL = load_queries("message_retention.sql")
_LEVEL = 4  # of compression
_PIECE = 256 * 1024  # bytes that are compressed at once, outside of the event loop
_BUCKET_TIMEOUT = 600.0  # seconds
_STALE = 24 * 3600.0  # seconds after which a part that nobody finished is removed


class _WrittenByAnother(Exception):
    """Another replica wrote the mailing's messages, and they are being removed."""


class MessageArchive:
    """Writes to `folder`. Its method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    async def write(self, mailing_id: int) -> bool:
        """Write all messages and failed attempts of a mailing; return False if another replica has done it meanwhile.

        Raise OSError where they cannot be written, and leave no part of a file.
        """
        await asyncio.to_thread(_prepare, self._folder)
        for kind, statement in KINDS.items():
            try:
                async with _whole_file(self._folder / f"mailing-{mailing_id}-{kind}.csv.gz") as file:
                    await self._copy(_SQL[statement], mailing_id, file)
                    await self._require_shown(mailing_id)
            except _WrittenByAnother:
                return False
        return True

    async def _require_shown(self, mailing_id: int) -> None:
        """Raise _WrittenByAnother unless the messages are all there still: what was read may then be a part."""
        if await self._database.fetchrow(*_SQL["find_shown"].bind(mailing_id=mailing_id)) is None:
            raise _WrittenByAnother

    async def _copy(self, query: Query, mailing_id: int, file: gzip.GzipFile) -> None:
        for number, bucket in enumerate(await self._buckets()):
            piece = bytearray()

            async def take(data: bytes, piece: bytearray = piece) -> None:
                piece.extend(data)
                if len(piece) >= _PIECE:
                    await asyncio.to_thread(file.write, bytes(piece))
                    piece.clear()

            text, *values = query.bind(bucket=bucket, mailing_id=mailing_id, **_names(query))
            async with self._database.connection() as connection:
                await connection.copy_from_query(
                    text, *values, output=take, format="csv", header=number == 0, timeout=_BUCKET_TIMEOUT
                )
            await asyncio.to_thread(file.write, bytes(piece))

    async def _buckets(self) -> list[int]:
        return [row["bucket"] for row in await self._database.fetch(*_SQL["list_archived_buckets"].bind())]


@asynccontextmanager
async def _whole_file(path: Path) -> AsyncIterator[gzip.GzipFile]:
    """Lend a file that gets its name when the block has ended well, and all of it is on the disk."""
    part = path.with_name(f".{path.name}.{uuid4()}.part")
    try:
        with part.open("xb") as raw:
            file = gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, filename="", mtime=0)
            yield file
            await asyncio.to_thread(_finish, file, raw.fileno())
        part.replace(path)
        await asyncio.to_thread(_sync_folder, path.parent)
    finally:
        part.unlink(missing_ok=True)


def _finish(file: gzip.GzipFile, descriptor: int) -> None:
    file.close()
    assert file.fileobj is None
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(folder: Path) -> None:
    """Make the folder where it is missing, and remove parts whose writer was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".mailing-*.part"):
        if part.stat().st_mtime < time.time() - _STALE:
            part.unlink(missing_ok=True)


def _names(query: Query) -> dict[str, list[str | None]]:
    """Return the names of the numbers that a query shows, in the order of the numbers."""
    names = {
        "statuses": _listed(Status, 1),
        "reasons": _listed(Reason, 0),
        "receipts": _listed(Receipt, 1),
        "error_classes": _listed(ErrorClass, 1),
    }
    return {name: names[name] for name in query.names if name in names}


def _listed(enum: type[IntEnum], first: int) -> list[str | None]:
    by_number = {int(one): one.name for one in enum}
    return [by_number.get(number) for number in range(first, max(by_number) + 1)]
