"""Samples of the connections that this process has to its database."""

from __future__ import annotations

from math import isfinite
from typing import Protocol

from server.observability.metrics.samples import Samples
from server.storage.database import Database
from server.storage.standby import Standby


class ConnectionPool(Protocol):
    """What is asked of a pool."""

    def get_size(self) -> int:
        """Return how many connections are open."""
        ...

    def get_idle_size(self) -> int:
        """Return how many of them nobody uses."""
        ...

    def get_max_size(self) -> int:
        """Return how many there may be."""
        ...


def error_samples(database: Database, part: str) -> Samples:
    """Return how often the database was unavailable to a part of the service."""
    return {"mailing_database_errors_total": {(part,): database.all_failures}}


def pool_samples(pool: ConnectionPool, part: str) -> Samples:
    """Return how many connections a pool has; `part` names its owner."""
    idle = pool.get_idle_size()
    return {
        "mailing_database_connections": {(part, "busy"): pool.get_size() - idle, (part, "idle"): idle},
        "mailing_database_connections_max": {(part,): pool.get_max_size()},
    }


def standby_samples(standby: Standby | None) -> Samples:
    """Return how far a standby is behind, as far as that is known."""
    if standby is None or not isfinite(standby.lag):
        return {}
    return {"mailing_standby_lag_seconds": {(): standby.lag}}
