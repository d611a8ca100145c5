"""What all replicas share about endpoints: circuit breakers, and the slots of rate limits.

The first two classes implement ports of the engine and may raise StorageUnavailable; EndpointStore
serves the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from dispatcher.breaker import SUCCESS_COUNTS_FOR
from dispatcher.model.endpoints import EndpointState, SlotRequest, Slots
from dispatcher.model.quotas import DayLimit
from dispatcher.model.rates import bounded_rate
from dispatcher.model.states import BreakerState, Suspension
from dispatcher.outcome_events import Event, breaker_closed, breaker_opened
from dispatcher.rate_limiter import HORIZON
from server.domain.replicas import EndpointHealth, EndpointSuspension, health_of, suspension_of
from server.storage.database import Database, DispatcherDatabase
from server.storage.day_quotas import used_today
from server.storage.events import record
from server.storage.queries import load_queries

_SQL = load_queries("endpoints.sql")


class PostgresEndpointHealth:
    """Circuit breakers; a probe belongs to `replica_id`. Implements `ports.EndpointHealth`."""

    def __init__(self, database: DispatcherDatabase, replica_id: UUID) -> None:
        self._database = database
        self._replica_id = replica_id

    async def breakers(self, endpoints: Sequence[str]) -> dict[str, EndpointState]:
        rows = await self._database.fetch(*_SQL["breakers"].bind(names=endpoints))
        return {
            row["name"]: EndpointState(
                BreakerState(row["breaker"]), row["probe_in"], Suspension(row["suspension"]), row["pause_in"]
            )
            for row in rows
        }

    async def pause(self, endpoint: str, seconds: float) -> None:
        await self._database.execute(*_SQL["pause"].bind(endpoint=endpoint, pause=timedelta(seconds=seconds)))

    async def open_breaker(self, endpoint: str, probe_in: float, error: str, suspension: Suspension) -> bool:
        statement = _SQL["open_breaker"].bind(
            endpoint=endpoint,
            replica_id=self._replica_id,
            probe_in=timedelta(seconds=probe_in),
            error=error,
            suspension=suspension,
            recent=SUCCESS_COUNTS_FOR,
        )
        async with self._database.transaction() as connection:
            if await connection.execute(*statement) == "INSERT 0 1":
                await record(connection, breaker_opened(endpoint, error, suspension))
                return True
            return bool(await connection.fetchval(*_SQL["is_open"].bind(endpoint=endpoint)))

    async def begin_probe(self, endpoint: str, longest: float) -> bool:
        statement = _SQL["begin_probe"].bind(
            endpoint=endpoint, replica_id=self._replica_id, longest=timedelta(seconds=longest)
        )
        return await self._database.fetchrow(*statement) is not None

    async def close_breaker(self, endpoint: str) -> None:
        statement = _SQL["close_breaker"].bind(endpoint=endpoint, replica_id=self._replica_id)
        async with self._database.transaction() as connection:
            if await connection.execute(*statement) == "UPDATE 1":
                await record(connection, breaker_closed(endpoint))

    async def fail_probe(self, endpoint: str, shortest: float, longest: float, error: str) -> float:
        statement = _SQL["fail_probe"].bind(
            endpoint=endpoint,
            replica_id=self._replica_id,
            shortest=timedelta(seconds=shortest),
            longest=timedelta(seconds=longest),
            error=error,
        )
        row = await self._database.fetchrow(*statement)
        return float(row["probe_in"]) if row is not None else shortest


class PostgresRateSlots:
    """Slots of rate limits. Implements `ports.RateSlotStore`."""

    def __init__(self, database: DispatcherDatabase) -> None:
        self._database = database

    async def reserve(self, requests: Sequence[SlotRequest]) -> tuple[float, dict[str, Slots]]:
        rates = {request.key: bounded_rate(request.rate) for request in requests}
        statement = _SQL["reserve"].bind(
            keys=[request.key for request in requests],
            rates=list(rates.values()),
            wanted=[request.wanted for request in requests],
            horizon=timedelta(seconds=HORIZON),
        )
        rows = await self._database.fetch(*statement)
        slots = {row["key"]: Slots(row["since"], 1 / rates[row["key"]], row["granted"]) for row in rows}
        return float(rows[0]["read_at"]), slots


class EndpointStore:
    """Reads the state of endpoints. May raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, event: Event) -> None:
        """Record an event that changes nothing, in the name of the current caller."""
        async with self._database.transaction() as connection:
            await record(connection, event)

    async def health(self, names: Sequence[str]) -> dict[str, EndpointHealth]:
        """Return the state of these endpoints; one without a recorded state is healthy."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(*_SQL["get_endpoints"].bind(names=list(names)))
            suspensions = await get_suspensions(connection)
        breakers = {row["name"]: (BreakerState(row["breaker"]), row["last_error"]) for row in rows}
        return {
            name: health_of(*breakers.get(name, (BreakerState.CLOSED, "")), suspensions.get(name)) for name in names
        }

    async def sent_today(self, limits: Mapping[str, DayLimit]) -> dict[str, int]:
        """Return how many messages left today, by the endpoints that have these quotas; what is held ready counts."""
        if not limits:
            return {}
        async with self._database.connection() as connection:
            used = await used_today(connection, {f"endpoint/{name}": limit for name, limit in limits.items()})
        return {name: used[f"endpoint/{name}"] for name in limits}


async def get_suspensions(connection: asyncpg.Connection) -> dict[str, EndpointSuspension]:
    """Return why and until when nothing is sent to which endpoints."""
    rows = await connection.fetch(*_SQL["get_suspensions"].bind())
    return {
        row["name"]: suspension_of(Suspension(row["reason"]), row["since"], row["until"], row["last_error"])
        for row in rows
    }
