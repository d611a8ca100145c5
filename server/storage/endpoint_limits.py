"""What all replicas share about endpoints and rates, on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from dispatcher.model.endpoints import EndpointState, SlotRequest, Slots
from dispatcher.model.states import BreakerState
from dispatcher.outcome_events import breaker_closed, breaker_opened
from dispatcher.rate_limiter import HORIZON
from server.storage.event_writer import record
from server.storage.queries import load_queries
from server.storage.reach import translate_database_errors

_SQL = load_queries("endpoint_limits.sql")


class PostgresEndpointHealth:
    """Breakers behind an asyncpg pool; `replica_id` says whose a probe is. Implements `ports.EndpointHealth`."""

    def __init__(self, pool: asyncpg.Pool, replica_id: UUID) -> None:
        self._pool = pool
        self._replica_id = replica_id

    async def breakers(self, endpoints: Sequence[str]) -> dict[str, EndpointState]:
        with translate_database_errors():
            rows = await self._pool.fetch(*_SQL["breakers"].bind(names=endpoints))
        return {row["name"]: EndpointState(BreakerState(row["breaker"]), row["probe_in"]) for row in rows}

    async def open_breaker(self, endpoint: str, probe_in: float, error: str) -> None:
        statement = _SQL["open_breaker"].bind(endpoint=endpoint, probe_in=timedelta(seconds=probe_in), error=error)
        with translate_database_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.execute(*statement) == "INSERT 0 1":
                    await record(connection, 0, [breaker_opened(endpoint, error)])

    async def begin_probe(self, endpoint: str, longest: float) -> bool:
        statement = _SQL["begin_probe"].bind(
            endpoint=endpoint, replica_id=self._replica_id, longest=timedelta(seconds=longest)
        )
        with translate_database_errors():
            row = await self._pool.fetchrow(*statement)
        return row is not None

    async def close_breaker(self, endpoint: str) -> None:
        statement = _SQL["close_breaker"].bind(endpoint=endpoint, replica_id=self._replica_id)
        with translate_database_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.execute(*statement) == "UPDATE 1":
                    await record(connection, 0, [breaker_closed(endpoint)])

    async def fail_probe(self, endpoint: str, shortest: float, longest: float, error: str) -> float:
        statement = _SQL["fail_probe"].bind(
            endpoint=endpoint,
            replica_id=self._replica_id,
            shortest=timedelta(seconds=shortest),
            longest=timedelta(seconds=longest),
            error=error,
        )
        with translate_database_errors():
            row = await self._pool.fetchrow(*statement)
        return float(row["probe_in"]) if row is not None else shortest


class PostgresRateSlots:
    """Rates behind an asyncpg pool; implements `ports.RateSlotStore`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def reserve(self, requests: Sequence[SlotRequest]) -> tuple[float, dict[str, Slots]]:
        rates = {request.key: request.rate for request in requests}
        statement = _SQL["reserve"].bind(
            keys=[request.key for request in requests],
            rates=[request.rate for request in requests],
            wanted=[request.wanted for request in requests],
            horizon=timedelta(seconds=HORIZON),
        )
        with translate_database_errors():
            rows = await self._pool.fetch(*statement)
        slots = {row["key"]: Slots(row["since"], 1 / rates[row["key"]], row["granted"]) for row in rows}
        return float(rows[0]["read_at"]), slots
