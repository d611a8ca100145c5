"""Adds clients of whom nothing is known yet: those who come while others are added go together into the next statement.

A client takes one round trip instead of six, and many share a commit. Whatever is out of the ordinary (a phone that is
taken or remembered, a request id that was used, an error) is left to the statements of `ClientStore`, one by one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import orjson

from server.domain.clients import Client, ClientDefinition
from server.domain.principals import set_source
from server.storage.client_rows import client_of
from server.storage.database import Database
from server.storage.gathered import Act, Gathered
from server.storage.installation import Installation
from server.storage.queries import load_queries
from server.storage.request_ids import CreatingCall

_SQL = load_queries("clients.sql")

MOST = 64
"""Clients of one statement."""


@dataclass(frozen=True, slots=True, eq=False)
class _Addition:
    """A client to be added, and the call that adds them."""

    definition: ClientDefinition
    call: CreatingCall | None


class ClientAdditions:
    """Adds clients. May raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database = database
        self._installation = installation
        self._gathered = Gathered(self._session, MOST)

    async def add(self, definition: ClientDefinition, call: CreatingCall | None) -> Client | None:
        """Add a client who has not opted out; return None, and change nothing, where more than that is to be done."""
        return await self._gathered.get(_Addition(definition, call))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Act[_Addition, Client]]:
        set_source("additions")  # all callers' turn, taken for one statement at a time
        yield self._add

    async def _add(self, additions: Sequence[_Addition]) -> Mapping[_Addition, Client]:
        first = {one.definition.phone: one for one in reversed(additions)}
        # In the order of phones, or replicas that add the same ones at once could wait for each other.
        ordered = [first[phone] for phone in sorted(first)]
        try:
            rows = await self._database.fetch(*_SQL["add_clients"].bind(**self._columns(ordered)))
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return {}  # one of them is at fault, or a race was lost
        return {first[row["phone"]]: client_of(row) for row in rows}

    def _columns(self, additions: Sequence[_Addition]) -> dict[str, list[object]]:
        definitions = [one.definition for one in additions]
        windows = [one.receive_window for one in definitions]
        calls = [one.call for one in additions]
        return {
            "buckets": [self._installation.bucket_of_phone(one.phone) for one in definitions],
            "phones": [one.phone for one in definitions],
            "operator_codes": [one.operator_code for one in definitions],
            "tags": [one.tag for one in definitions],
            "timezones": [one.timezone for one in definitions],
            "window_starts": [window and window.start for window in windows],
            "window_lengths": [window and window.duration for window in windows],
            "attributes": [orjson.dumps(dict(one.attributes)).decode() for one in definitions],
            "request_buckets": [call and self._installation.bucket_of_request(call.id) for call in calls],
            "request_ids": [call and call.id for call in calls],
            "methods": [call and call.method for call in calls],
            "digests": [call and call.digest for call in calls],
        }
