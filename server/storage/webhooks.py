"""Subscribers outside, in the database: their positions, their leases, and what they are to be sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import orjson

from server.domain.resume_tokens import Positions
from server.domain.webhooks import WebhookConfig
from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("webhooks.sql")

LEASE = timedelta(seconds=60)
"""How long a replica has a subscriber without saying so again: longer than a request may take."""


@dataclass(frozen=True, slots=True)
class Held:
    """A subscriber that this replica serves: where it stands, and how often it failed in a row."""

    feed: Positions
    log: Positions
    failures: int


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How a subscriber is doing. `waiting` counts entries behind its position, of which it may want none."""

    disabled: bool
    feed: Positions
    timeline: int
    waiting: int
    lag: timedelta | None
    last_success_at: datetime | None
    last_error: str
    next_attempt_at: datetime | None


class WebhookStore:
    """Positions and leases of subscribers, for one replica. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, replica_id: UUID) -> None:
        self._database = database
        self._holder = replica_id

    async def register(self, config: WebhookConfig) -> None:
        """Note that there is this subscriber; a new one gets what happens from now on."""
        await self._database.execute(*_SQL["register_webhook"].bind(name=config.name, config=config.digest))

    async def hold(self, name: str) -> Held | None:
        """Take or keep a subscriber; return None while it waits, had enough, or another replica serves it."""
        row = await self._database.fetchrow(*_SQL["hold_webhook"].bind(name=name, holder=self._holder, lease=LEASE))
        if row is None:
            return None
        return Held(tuple(row["feed_positions"]), tuple(row["log_positions"]), row["failures"])

    async def advance(self, name: str, feed: Positions, log: Positions, delivered: bool) -> bool:
        """Move the positions behind what the subscriber took; return False when another replica serves it by now."""
        statement = _SQL["advance_webhook"].bind(
            name=name,
            holder=self._holder,
            feed_positions=list(feed),
            log_positions=list(log),
            delivered=delivered,
            lease=LEASE,
        )
        return await self._database.fetchrow(*statement) is not None

    async def fail(self, name: str, error: str, wait: float, disabled: bool) -> None:
        """Note that the subscriber did not take a request; it is tried again in `wait` seconds, or never."""
        statement = _SQL["fail_webhook"].bind(
            name=name, holder=self._holder, error=error, wait=timedelta(seconds=wait), disabled=disabled
        )
        await self._database.execute(*statement)

    async def release(self, name: str) -> None:
        """Let another replica serve the subscriber."""
        await self._database.execute(*_SQL["release_webhook"].bind(name=name, holder=self._holder))

    async def statuses(self, names: Sequence[str]) -> dict[str, WebhookStatus]:
        """Return how subscribers are doing, by name."""
        rows = await self._database.fetch(*_SQL["list_webhooks"].bind(names=names))
        return {
            row["name"]: WebhookStatus(
                row["disabled"],
                tuple(row["feed_positions"]),
                row["timeline"],
                row["waiting"],
                row["lag"],
                row["last_success_at"],
                row["last_error"],
                row["next_attempt_at"],
            )
            for row in rows
        }

    async def labels(self, ids: Collection[int]) -> dict[int, Mapping[str, str]]:
        """Return the labels of mailings."""
        if not ids:
            return {}
        rows = await self._database.fetch(*_SQL["list_labels"].bind(ids=list(ids)))
        return {row["id"]: orjson.loads(row["labels"]) for row in rows}
