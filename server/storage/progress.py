"""Mailings with their progress, many at once: what watchers of mailings are told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from server.domain.mailings import Mailing
from server.storage.database import Database
from server.storage.mailing_rows import mailing_of
from server.storage.queries import load_queries

_SQL = load_queries("progress.sql")
_MAILINGS = load_queries("mailings.sql")

Version = tuple[int, datetime]
"""What differs whenever a mailing's definition or state does."""


class ProgressStore:
    """Reads progress. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, ids: Sequence[int]) -> dict[int, Mailing]:
        """Return those of the mailings that there are."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_MAILINGS["get_mailings"], ids)
        return {row["id"]: mailing_of(row) for row in rows}

    async def versions(self, ids: Sequence[int]) -> dict[int, Version]:
        """Return the versions of those of the mailings that there are: much cheaper than `read`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["mailing_versions"], ids)
        return {row["id"]: (row["version"], row["updated_at"]) for row in rows}
