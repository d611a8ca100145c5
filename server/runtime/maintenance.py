"""Keeps the ledger within its bounds: partitions ahead of the mailings to come, and messages no longer than is set.

Every replica runs one. What two of them do at once is done once, or twice with the same result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from server.config import Settings
from server.domain.errors import DatabaseUnavailable
from server.domain.message_retention import parse_retention
from server.observability.metrics import Samples
from server.storage.database import Database
from server.storage.message_archive import MessageArchive
from server.storage.message_retention import Retention
from server.storage.partitions import Partitions

INTERVAL = 30.0
"""Seconds between two looks at partitions and ages."""

log = logging.getLogger(__name__)

_Work = Callable[[], Awaitable[None]]


class Maintenance:
    """Counts what it does, for metrics."""

    def __init__(self, partitions: Partitions, retention: Retention) -> None:
        self._partitions = partitions
        self._retention = retention
        self._expired = self._failures = 0

    async def run(self) -> None:
        """Do what is to be done, again and again, until cancelled."""
        while True:
            await self.prepare()
            await self._try(self._expire, "messages that were kept long enough stay")
            await self._try(self._drop, "emptied partitions stay")
            await asyncio.sleep(INTERVAL)

    async def prepare(self) -> None:
        """Add the partitions that are missing for mailings to come."""
        await self._try(self._add, "no partition was added for mailings to come")

    def samples(self) -> Samples:
        """Return how many mailings lost their messages to the retention, and how often something had to be left."""
        return {
            "mailing_retention_mailings_total": {(): self._expired},
            "mailing_retention_failures_total": {(): self._failures},
        }

    async def _try(self, work: _Work, consequence: str) -> None:
        try:
            await work()
        except (DatabaseUnavailable, OSError) as error:
            self._failures += 1
            log.warning("%s, trying again: %r", consequence, error.__cause__ or error)
        except Exception:
            self._failures += 1
            log.exception("%s", consequence)

    async def _add(self) -> None:
        if added := await self._partitions.add_ahead():
            log.info("%d partitions were added for mailings to come", added)

    async def _expire(self) -> None:
        async for mailings in self._retention.expire():
            self._expired += len(mailings)

    async def _drop(self) -> None:
        for suffix in await self._partitions.drop_emptied():
            log.info("the emptied partition messages_%s was dropped", suffix)


def maintenance_of(database: Database, settings: Settings) -> Maintenance:
    """Return the maintenance that the settings ask for."""
    folder = settings.message_archive_dir
    archive = None if folder is None else MessageArchive(database, folder)
    retention = Retention(database, parse_retention(settings.message_retention), archive)
    return Maintenance(Partitions(database), retention)
