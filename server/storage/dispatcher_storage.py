"""Puts together the tables behind one dispatcher."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from dispatcher.model.settings import FrequencyCap
from dispatcher.ports import Storage
from server.storage.endpoint_limits import PostgresEndpointHealth, PostgresRateSlots
from server.storage.heartbeats import PostgresHeartbeats
from server.storage.planning import PostgresMailingPlan
from server.storage.work_queue import PostgresWorkQueue


def dispatcher_storage(pool: asyncpg.Pool, replica_id: UUID, cap: FrequencyCap | None = None) -> Storage:
    """Return the storage of the replica of this id. With a `cap`, no client is sent more than it allows."""
    return Storage(
        plan=PostgresMailingPlan(pool),
        queue=PostgresWorkQueue(pool, replica_id, cap),
        health=PostgresEndpointHealth(pool, replica_id),
        rates=PostgresRateSlots(pool),
        heartbeats=PostgresHeartbeats(pool, replica_id),
    )
