"""Puts together the tables behind one dispatcher."""

from __future__ import annotations

from uuid import UUID

from dispatcher.model.records import FrequencyCap
from dispatcher.ports import Storage
from server.storage.database import DispatcherDatabase
from server.storage.endpoint_limits import PostgresEndpointHealth, PostgresRateSlots
from server.storage.heartbeats import PostgresHeartbeats
from server.storage.planning import PostgresMailingPlan
from server.storage.work_queue import PostgresWorkQueue


def dispatcher_storage(database: DispatcherDatabase, replica_id: UUID, cap: FrequencyCap | None = None) -> Storage:
    """Return the storage of the replica of this id. With a `cap`, no client is sent more than it allows."""
    return Storage(
        plan=PostgresMailingPlan(database),
        queue=PostgresWorkQueue(database, replica_id, cap),
        health=PostgresEndpointHealth(database, replica_id),
        rates=PostgresRateSlots(database),
        heartbeats=PostgresHeartbeats(database, replica_id),
    )
