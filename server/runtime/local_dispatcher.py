"""Dispatching as the settings say: in this process, or by processes beside it.

Both forms look alike to those who run them: `hint`, `run` until stopped, `stop`. Each
dispatcher is a replica of its own; they meet in the database only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from math import isfinite
from typing import Protocol
from uuid import uuid4

from dispatcher.dispatcher import Dispatcher
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.settings import DispatchSettings, FrequencyCap
from dispatcher.model.states import Suspension
from dispatcher.signals import Signal
from dispatcher.tasks import cancel
from dispatcher.tracing import Tracer, traced
from server.config import Settings
from server.endpoints.dns_check import DnsCheck
from server.endpoints.senders import Endpoints
from server.observability.metrics import Samples, samples_of
from server.observability.metrics.database import pool_samples
from server.observability.metrics.dispatchers import HEARTBEAT
from server.storage.database import DispatcherDatabase, Pool
from server.storage.dispatcher_storage import dispatcher_storage, listen
from server.storage.schema_watch import SchemaWatch
from server.storage.work_queue import PostgresWorkQueue

log = logging.getLogger(__name__)


class Dispatch(Protocol):
    """A dispatcher, or several: what delivers. Emits `refused` with the endpoint that refuses its credentials."""

    refused: Signal[str]

    def hint(self) -> None:
        """Note that something changed in the ledger."""
        ...

    def signal(self, number: int) -> None:
        """Pass a signal on to processes beside this one."""
        ...

    def renew(self, endpoint: Endpoint) -> None:
        """Use the secrets of this endpoint from the next request on."""
        ...

    async def run(self) -> None:
        """Deliver until `stop` is called."""
        ...

    async def stop(self, grace: float) -> None:
        """Ask `run` to settle what is in flight within `grace` seconds and to end."""
        ...

    def samples(self) -> Samples:
        """Return what it did and how it does."""
        ...

    def written_at(self) -> float:
        """Return when it last wrote to the database, as far as this process knows (monotonic)."""
        ...


async def free_batches(pool: Pool) -> None:
    """Take all leases back, on a database that was just started for this process alone.

    Their holders died with the database; without this the batches would wait until the leases run out.
    """
    await PostgresWorkQueue(DispatcherDatabase(pool), uuid4()).release_all()


async def _log_unresolved(endpoints: Endpoints) -> None:
    """Log at once which endpoint has a name that does not resolve: its messages are retried until it does."""
    for failure in set((await DnsCheck(endpoint for endpoint, _ in endpoints).failures()).values()):
        log.warning("%s: nothing can be delivered there", failure)


def dispatch_settings(settings: Settings) -> DispatchSettings:
    """Return what the environment says of dispatching."""
    return DispatchSettings(
        poll_min=settings.poll_min,
        poll_max=settings.poll_max,
        recheck_min=settings.recheck_min,
        recheck_max=settings.recheck_max,
        lease=settings.lease,
        max_concurrency=settings.endpoint_max_concurrency,
        max_sms_segments=settings.max_sms_segments,
    )


def _frequency_cap(settings: Settings) -> FrequencyCap | None:
    if not settings.frequency_cap:
        return None
    return FrequencyCap(settings.frequency_cap, settings.frequency_period_hours * 3600)


class LocalDispatcher:
    """A dispatcher in this process, woken by this process and by the database's notifications."""

    def __init__(self, pool: Pool, endpoints: Endpoints, settings: Settings, tracer: Tracer | None = None) -> None:
        replica_id, cap = uuid4(), _frequency_cap(settings)
        self._pool = pool
        self._database = DispatcherDatabase(pool)
        self._schema = SchemaWatch()
        storage = dispatcher_storage(self._database, replica_id, cap, self._schema)
        self._endpoints = endpoints
        # A pooler in transaction mode, the reason to keep no statements, keeps no listener either.
        self._listens = settings.statement_cache_size > 0
        self._dispatcher = Dispatcher(
            traced(storage, tracer) if tracer else storage, endpoints, dispatch_settings(settings)
        )
        self.refused = Signal[str]()
        for workers in self._dispatcher.pools.values():
            workers.breaker_opened.connect(self._opened)

    def _opened(self, workers: EndpointWorkers) -> None:
        if workers.breaker.suspension is Suspension.CREDENTIALS:
            self.refused.emit(workers.name)

    def hint(self) -> None:
        """Make the dispatcher look for work now."""
        self._dispatcher.hint()

    def signal(self, number: int) -> None:
        """Do nothing: there is no other process."""

    def renew(self, endpoint: Endpoint) -> None:
        """Use the secrets of this endpoint from the next request on."""
        self._dispatcher.renew(endpoint)

    def samples(self) -> Samples:
        """Return what it did and how it does."""
        errors: Samples = {"mailing_database_errors_total": {("dispatcher",): self._database.failures}}
        age = time.monotonic() - self.written_at()
        own: Samples = {
            "mailing_dispatcher_newer_schema": {("0",): self._schema.is_newer},
            HEARTBEAT: {("0",): age} if isfinite(age) else {},
        }
        return samples_of(self._dispatcher) | own | errors | pool_samples(self._pool, "dispatcher")

    def written_at(self) -> float:
        """Return when it last wrote to the database (monotonic)."""
        return self._database.written_at

    async def run(self) -> None:
        """Deliver until `stop` is called. Raise what no dispatcher can go on after."""
        beside = [asyncio.create_task(self._listen()), asyncio.create_task(_log_unresolved(self._endpoints))]
        try:
            await self._dispatcher.run()
        finally:
            await cancel(*beside)

    async def stop(self, grace: float) -> None:
        """Ask `run` to settle what is in flight within `grace` seconds and to end."""
        await self._dispatcher.stop(grace)

    async def _listen(self) -> None:
        if self._listens:
            await listen(self._database, self._dispatcher.hint)
