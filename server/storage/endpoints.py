"""How endpoints are doing, as the dispatchers of all replicas tell in the database."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.model.states import BreakerState
from server.domain.endpoints import EndpointHealth
from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("endpoints.sql")


class EndpointStore:
    """Reads the state that replicas share. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def health(self, names: Sequence[str]) -> dict[str, EndpointHealth]:
        """Return the state of these endpoints; those that nobody told anything of are healthy."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["get_endpoints"], list(names))
        known = {row["name"]: EndpointHealth(BreakerState(row["breaker"]), row["last_error"]) for row in rows}
        return {name: known.get(name, EndpointHealth()) for name in names}
