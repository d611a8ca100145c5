"""How things stand in the ledger as a whole: what metrics show of it. Cheap, whatever its size."""

from __future__ import annotations

from typing import NamedTuple

from server.storage.database import Database
from server.storage.queries import load_queries

_SQL = load_queries("backlog.sql")


class OpenWork(NamedTuple):
    """Batches that are not settled: how many, how many are held, and how long the oldest other one is due (seconds)."""

    batches: int
    leased: int
    lag: float


class Backlog(NamedTuple):
    """`work` and `backlog` (pending messages) by endpoint, `mailings` by state, `recheck_lag` in seconds.

    `stopped` says that operators stopped all dispatching.
    """

    work: dict[str, OpenWork]
    backlog: dict[str, int]
    mailings: dict[str, int]
    recheck_lag: float
    stopped: bool


class BacklogStore:
    """Reads how things stand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> Backlog:
        """Return how things stand. Raise DatabaseUnavailable."""
        async with self._database.connection() as connection:
            work = await connection.fetch(_SQL["open_work"])
            backlog = await connection.fetch(_SQL["backlog"])
            mailings = dict(await connection.fetchrow(_SQL["live_mailings"]))
        recheck_lag, stopped = mailings.pop("recheck_lag"), mailings.pop("stopped")
        return Backlog(
            work={row["endpoint"]: OpenWork(row["batches"], row["leased"], row["lag"]) for row in work},
            backlog={row["endpoint"]: row["messages"] for row in backlog},
            mailings=mailings,
            recheck_lag=recheck_lag,
            stopped=bool(stopped),
        )
