"""How a process of the service begins and ends: its database and schema first, then an orderly stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from server.api import ApiServer
from server.config import Settings, masked
from server.embedded_postgres import EmbeddedPostgres
from server.runtime.local_dispatcher import Dispatch
from server.runtime.process import install_level_signals
from server.storage.pool import prepare_database

log = logging.getLogger("server.main")

CALLS_GRACE = 5.0
"""Seconds that calls under way have to end at shutdown."""

_MARGIN = 5.0


class ServiceError(Exception):
    """The service cannot go on; the message is one sentence."""


@contextmanager
def database_of(settings: Settings, beside: bool = False) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    """Lend the DSN of the database, and its server if that is the embedded one and is started here.

    With `beside` a service that runs on the folder may go on: its server is used.
    """
    if settings.database_url is not None:
        yield settings.database_url, None
        return
    postgres = EmbeddedPostgres(settings.data_dir)
    if beside and (running := postgres.dsn_of_running()) is not None:
        yield running, None
        return
    dsn = postgres.start()
    try:
        yield dsn, postgres
    finally:
        postgres.stop()


async def upgrade_schema(dsn: str, settings: Settings) -> None:
    """Bring the database to the schema of this release; log the version if that took a migration."""
    applied, _ = await prepare_database(dsn, settings)
    if applied:
        log.info("database schema upgraded to version %s", applied[-1], extra={"database": masked(dsn)})


async def run_until_stopped(
    stopped: asyncio.Event,
    settle_grace: float,
    dispatcher: Dispatch,
    api: ApiServer | None = None,
    postgres: EmbeddedPostgres | None = None,
) -> None:
    """Dispatch and answer calls until `stopped` is set, then end in order.

    The order: health checks get NOT_SERVING and new calls are rejected; no more batches are claimed;
    requests in flight end, or are released, and are settled, within `settle_grace` seconds. Raise
    ServiceError when the dispatcher or the embedded Postgres ended by itself.
    """
    install_level_signals(dispatcher.signal)
    dispatching = asyncio.create_task(dispatcher.run())
    cause = await _first_end(stopped, dispatching, postgres)
    # Without its database nothing can be settled, so there is nothing to wait for.
    grace = 0.0 if cause else settle_grace
    closing = asyncio.create_task(api.stop(CALLS_GRACE if not cause else 0.0)) if api else None
    await dispatcher.stop(grace)
    await asyncio.wait([dispatching], timeout=grace + _MARGIN)
    dispatching.cancel()
    await asyncio.gather(dispatching, *([closing] if closing else []), return_exceptions=True)
    if cause:
        raise ServiceError(cause)


async def _first_end(stopped: asyncio.Event, dispatching: asyncio.Task[None], postgres: EmbeddedPostgres | None) -> str:
    """Return why the service cannot go on; '' when it was asked to stop."""
    death = asyncio.create_task(postgres.died() if postgres else _never())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((dispatching, death, stopping), return_when=asyncio.FIRST_COMPLETED)
    cause = _cause(dispatching, death)
    stopping.cancel()
    death.cancel()
    return cause


def _cause(dispatching: asyncio.Task[None], death: asyncio.Task[str]) -> str:
    if death.done():
        return death.result()
    if not dispatching.done():
        return ""
    if error := dispatching.exception():
        log.error("the dispatcher failed", exc_info=error)
    return "The dispatcher ended by itself: the log says why."


async def _never() -> str:
    await asyncio.Event().wait()
    raise AssertionError
