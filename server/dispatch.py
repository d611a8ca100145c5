"""Dispatching as the settings say: in this process, or by processes beside it.

Both forms look alike to those who run them: `hint`, `run` until stopped, `stop`. Each
dispatcher is a replica of its own; they meet in the database only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from dispatcher.http_fast import FastSender
from dispatcher.model import DispatchSettings, Endpoint
from dispatcher.ports import Sender
from dispatcher.postgres import PostgresLedger
from dispatcher.postgres_replicas import PostgresReplicas
from dispatcher.service import Dispatcher
from server.config import ConfigError, Settings

log = logging.getLogger(__name__)

DEFAULT_ENDPOINT = "default"
"""The name of the endpoint of the environment; mailings that name none mean it, too."""

Endpoints = Mapping[str, tuple[Endpoint, Sender]]


class Dispatch(Protocol):
    """Somebody who delivers."""

    def hint(self) -> None:
        """Says that something changed in the ledger."""
        ...

    async def run(self) -> None:
        """Delivers until `stop` is called."""
        ...

    async def stop(self, grace: float) -> None:
        """Asks `run` to settle what is in flight within `grace` seconds and to end."""
        ...


def make_endpoints(settings: Settings) -> Endpoints:
    """Returns the endpoint of the environment, by its names; nothing where none is set.

    Call it in the running loop. Raises ConfigError for one that no sender takes.
    """
    if settings.endpoint_url is None:
        log.warning("nothing will be delivered: MAILING_ENDPOINT_URL is not set")
        return {}
    endpoint = Endpoint(
        name=DEFAULT_ENDPOINT,
        url=settings.endpoint_url,
        token=settings.endpoint_token.get_secret_value(),
        total_timeout=settings.endpoint_timeout,
        connect_timeout=min(settings.endpoint_connect_timeout, settings.endpoint_timeout),
        max_concurrency=_most_in_flight(settings),
        ca_file=str(settings.endpoint_ca_file) if settings.endpoint_ca_file else None,
    )
    try:
        sender = _sender(endpoint, settings.endpoint_transport)
    except ValueError as error:
        raise ConfigError([f"The endpoint of MAILING_ENDPOINT_URL cannot be used: {error}."]) from error
    return dict.fromkeys(("", DEFAULT_ENDPOINT), (endpoint, sender))


def _most_in_flight(settings: Settings) -> int:
    """What httpx bears, or what is set: a request must not wait in a sender after it was found to be in time."""
    if settings.endpoint_transport == "httpx":
        from dispatcher.http_httpx import MAX_CONNECTIONS  # loaded only by those who use it

        return min(settings.endpoint_max_concurrency, MAX_CONNECTIONS)
    return settings.endpoint_max_concurrency


def _sender(endpoint: Endpoint, transport: str) -> Sender:
    if transport == "fast":
        return FastSender(endpoint)
    from dispatcher.http_httpx import HttpxSender  # loaded only by those who use it

    return HttpxSender(endpoint)


async def free_batches(pool: asyncpg.Pool) -> None:
    """Takes all leases back, on a database that was just started for this process alone.

    Whoever held them died with its database; without this their batches would wait for the
    leases to run out.
    """
    await PostgresLedger(pool, uuid4()).release_all()


async def _resolve_hosts(endpoints: Endpoints) -> None:
    """Says at once which endpoint has a name that nobody knows: its messages are tried again until somebody does."""
    for url in {endpoint.url for endpoint, _ in endpoints.values()}:
        host = urlsplit(url).hostname
        try:
            await asyncio.get_running_loop().getaddrinfo(host, None)
        except OSError as error:
            log.warning("the endpoint's host %s does not resolve (%s): nothing can be delivered there", host, error)


def dispatch_settings(settings: Settings) -> DispatchSettings:
    """Returns what the environment says of dispatching."""
    return DispatchSettings(
        poll_min=settings.poll_min,
        poll_max=settings.poll_max,
        recheck_min=settings.recheck_min,
        recheck_max=settings.recheck_max,
        lease=settings.lease,
        max_concurrency=settings.endpoint_max_concurrency,
    )


class LocalDispatch:
    """A dispatcher in this process, woken by this process and by the database's notifications."""

    def __init__(self, pool: asyncpg.Pool, endpoints: Endpoints, settings: Settings) -> None:
        replica_id = uuid4()
        self._ledger = PostgresLedger(pool, replica_id)
        self._endpoints = endpoints
        # A pooler in transaction mode, the reason to keep no statements, keeps no listener either.
        self._listens = settings.statement_cache_size > 0
        self._dispatcher = Dispatcher(
            self._ledger,
            endpoints,
            dispatch_settings(settings),
            replicas=PostgresReplicas(pool, replica_id),
        )

    def hint(self) -> None:
        """Makes the dispatcher look for work now."""
        self._dispatcher.hint()

    async def run(self) -> None:
        """Delivers until `stop` is called. Raises what no dispatcher can go on after."""
        beside = [asyncio.create_task(self._listen()), asyncio.create_task(_resolve_hosts(self._endpoints))]
        try:
            await self._dispatcher.run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def stop(self, grace: float) -> None:
        """Asks `run` to settle what is in flight within `grace` seconds and to end."""
        await self._dispatcher.stop(grace)

    async def _listen(self) -> None:
        if not self._listens:
            return
        try:
            await self._ledger.listen(self._dispatcher.hint)
        except Exception:  # hints only save time: without them there is still the polling
            log.exception("no notifications any more, changes are found by polling")
