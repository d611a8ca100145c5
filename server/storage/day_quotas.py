"""Daily quotas: what replicas reserve of each day, and what was used.

PostgresDayQuotas implements a port of the engine and may raise StorageUnavailable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from dispatcher.model.quotas import DayLimit, QuotaGrant, QuotaRequest, QuotaReturn
from server.storage.database import DispatcherDatabase
from server.storage.queries import load_queries

_SQL = load_queries("day_quotas.sql")


class PostgresDayQuotas:
    """Permits of daily quotas. Implements `ports.DayQuotaStore`."""

    def __init__(self, database: DispatcherDatabase) -> None:
        self._database = database

    async def permit(self, request: QuotaRequest) -> QuotaGrant:
        most, timezone = request.limit
        statement = _SQL["permit"].bind(key=request.key, most=most, timezone=timezone, wanted=request.wanted)
        row = await self._database.fetchrow(*statement)
        assert row is not None, "an upsert without a condition returns its row"
        if row["is_first"]:
            await self._database.execute(*_SQL["forget_days"].bind(key=request.key))
        return QuotaGrant(row["day"], row["granted"], row["left"], row["ends_in"])

    async def give_back(self, returns: Sequence[QuotaReturn]) -> None:
        keys, days, counts = zip(*returns, strict=True)
        await self._database.execute(*_SQL["give_back"].bind(keys=keys, days=days, counts=counts))


async def used_today(connection: asyncpg.Connection, limits: Mapping[str, DayLimit]) -> dict[str, int]:
    """Return what was reserved today of each of these limits, by key; 0 for one that was not asked for."""
    zones = [limit.timezone for limit in limits.values()]
    rows = await connection.fetch(*_SQL["used_today"].bind(keys=list(limits), timezones=zones)) if limits else []
    return dict.fromkeys(limits, 0) | {row["key"]: row["used"] for row in rows}
