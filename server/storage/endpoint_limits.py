"""The part of the ledger that all replicas share about endpoints and rates, on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from dispatcher.model.records import EndpointState, SlotRequest, Slots
from dispatcher.model.states import BreakerState
from dispatcher.outcome_events import breaker_closed, breaker_opened
from dispatcher.rate_limiter import HORIZON
from server.storage.event_writer import record
from server.storage.queries import load_queries
from server.storage.reach import translate_database_errors

_SQL = load_queries("endpoint_limits.sql")


class PostgresEndpointLimits:
    """Breakers and rates behind an asyncpg pool; `replica_id` says whose a probe is."""

    def __init__(self, pool: asyncpg.Pool, replica_id: UUID) -> None:
        self._pool = pool
        self._replica_id = replica_id

    async def breakers(self, endpoints: Sequence[str]) -> dict[str, EndpointState]:
        with translate_database_errors():
            rows = await self._pool.fetch(_SQL["breakers"], endpoints)
        return {row["name"]: EndpointState(BreakerState(row["breaker"]), row["probe_in"]) for row in rows}

    async def open_breaker(self, endpoint: str, probe_in: float, error: str) -> None:
        with translate_database_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                opened = await connection.execute(_SQL["open_breaker"], endpoint, timedelta(seconds=probe_in), error)
                if opened == "INSERT 0 1":
                    await record(connection, 0, [breaker_opened(endpoint, error)])

    async def begin_probe(self, endpoint: str, longest: float) -> bool:
        with translate_database_errors():
            row = await self._pool.fetchrow(_SQL["begin_probe"], endpoint, self._replica_id, timedelta(seconds=longest))
        return row is not None

    async def close_breaker(self, endpoint: str) -> None:
        with translate_database_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.execute(_SQL["close_breaker"], endpoint, self._replica_id) == "UPDATE 1":
                    await record(connection, 0, [breaker_closed(endpoint)])

    async def fail_probe(self, endpoint: str, shortest: float, longest: float, error: str) -> float:
        spans = timedelta(seconds=shortest), timedelta(seconds=longest)
        with translate_database_errors():
            row = await self._pool.fetchrow(_SQL["fail_probe"], endpoint, self._replica_id, *spans, error)
        return float(row["probe_in"]) if row is not None else shortest

    async def reserve(self, requests: Sequence[SlotRequest]) -> tuple[float, dict[str, Slots]]:
        rates = {request.key: request.rate for request in requests}
        with translate_database_errors():
            rows = await self._pool.fetch(
                _SQL["reserve"],
                [request.key for request in requests],
                [request.rate for request in requests],
                [request.wanted for request in requests],
                timedelta(seconds=HORIZON),
            )
        slots = {row["key"]: Slots(row["since"], 1 / rates[row["key"]], row["granted"]) for row in rows}
        return float(rows[0]["read_at"]), slots
