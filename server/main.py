"""The composition root: settings → database → schema → API and dispatcher, and how they end.

Nothing is decided here but the order. Standard output gets one line, `serving on
HOST:PORT`, when calls are answered; everything else goes to standard error. Exit status:
0 after SIGTERM or SIGINT, 2 for settings that cannot be used, 1 for any other failure.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from dispatcher.model.records import DEFAULT_ENDPOINT
from dispatcher.tasks import in_background
from server.api import CallLimits, CannotListen, RpcServer, RpcSettings, build_server
from server.api.channelz import serving_channelz
from server.config import ConfigError, Settings, environment_of, load_settings, masked, split_address
from server.config.types import ConfiguredEndpoint
from server.domain.previews import FrequencyCap
from server.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from server.endpoints.probes import EndpointProbes
from server.endpoints.senders import configured_endpoints, make_endpoints
from server.observability.admin_port import CannotOpenAdmin, Monitored, open_admin
from server.observability.health import DatabaseWatch
from server.observability.logging import LEVEL_SIGNALS, configure_logs, shift_level
from server.observability.metrics.backlog import BacklogGauges
from server.observability.metrics.database import pool_samples
from server.observability.metrics.reports import reporting
from server.observability.tracing import tracing
from server.runtime.access import Access, read_access
from server.runtime.deletion_sweeper import sweep
from server.runtime.local_dispatcher import Dispatch, LocalDispatcher, dispatch_settings, free_batches
from server.runtime.process_memory import tune_gc, use_one_arena
from server.runtime.supervisor import Supervisor
from server.storage.backlog import BacklogStore
from server.storage.database import Database
from server.storage.mailing_deletion import MailingDeletion
from server.storage.pool import DatabaseError, open_pool, prepare_database
from server.watch import StreamSettings

log = logging.getLogger("server.main")  # also when run as __main__

CALLS_GRACE = 5.0
"""Seconds that calls under way have to end at shutdown."""

SETTLE_GRACE = 5.0
"""Seconds to settle at shutdown, on top of the longest request."""

DISPATCHER_CONNECTIONS = 13
"""Connections of a dispatcher at the most: claims, settles, planning, confirming, rates, and one that listens."""

_MARGIN = 5.0
_CHILD = "--until-stdin-closes"


class ServiceError(Exception):
    """The service cannot go on; the message is one sentence."""


def _rpc_settings(settings: Settings, configured: Sequence[ConfiguredEndpoint], access: Access) -> RpcSettings:
    streams = StreamSettings(retention=settings.journal_retention_hours * 3600)
    # Mailings may come before the first endpoint is configured: they wait for the default one.
    names = frozenset(one.endpoint.name for one in configured) or {DEFAULT_ENDPOINT}
    return RpcSettings(
        endpoints=frozenset(names),
        max_message_bytes=int(settings.max_message_mib * 2**20),
        limits=CallLimits(
            streams=settings.max_streams_per_principal,
            calls=settings.max_calls_per_principal,
            per_second=settings.max_calls_per_second,
            longest=settings.max_call_seconds,
        ),
        streams_per_connection=settings.max_streams_per_connection,
        connection_age=settings.connection_age,
        connection_grace=settings.connection_grace,
        endpoint_rates={one.endpoint.name: one.endpoint.max_rate for one in configured},
        streams=streams,
        log_retention=settings.log_retention_hours * 3600,
        dispatch=dispatch_settings(settings),
        frequency_cap=FrequencyCap(settings.frequency_cap, timedelta(hours=settings.frequency_period_hours)),
        authenticator=access.authenticator,
        credentials=access.tls.credentials() if access.tls else None,
        reflection=access.reflection,
    )


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status."""
    return _run(settings, lambda: serve(settings))


def run_migrations(settings: Settings) -> int:
    """Bring the database to this release's schema, print the versions applied and return the exit status."""
    return _run(settings, lambda: _migrate(settings))


def run_dispatcher(settings: Settings, until_stdin_closes: bool = False) -> int:
    """Run a dispatcher alone, without API, until SIGTERM or SIGINT and return the exit status.

    Its database is another service's, so one must be set.
    """
    return _run(settings, lambda: dispatch(settings, until_stdin_closes))


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT. Raise one of the errors that `run` turns into a status."""
    stopped = _signalled()
    access = read_access(settings)
    configured = configured_endpoints(settings)
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracing(settings))
        endpoints = make_endpoints(configured, tracer)
        dsn, postgres = stack.enter_context(_database(settings))
        await _bring_up_to_date(dsn, settings)
        pool = await stack.enter_async_context(open_pool(dsn, settings))
        if postgres:
            await free_batches(pool)
        dispatcher: Dispatch
        if settings.dispatchers:
            told = environment_of(settings) | {"MAILING_DSN": dsn}
            dispatcher = Supervisor(settings.dispatchers, told, settings.log_file)
        else:
            # Connections of its own: whatever callers do, outcomes are written.
            own = await stack.enter_async_context(open_pool(dsn, settings, DISPATCHER_CONNECTIONS))
            dispatcher = LocalDispatcher(own, endpoints, settings, tracer)
        await stack.enter_async_context(access.kept())
        rpc = replace(_rpc_settings(settings, configured, access), tracer=tracer)
        registry = CollectorRegistry()
        api = await build_server(pool, dispatcher.hint, registry, rpc, EndpointProbes(configured))
        port = api.bind(settings.listen)
        database = Database(pool)
        monitored = Monitored(
            watch=DatabaseWatch(database, api.ready),
            stopped=stopped,
            sources=[dispatcher.samples, api.samples, partial(pool_samples, pool, "api")],
            registry=registry,
            ledger=BacklogGauges(BacklogStore(database).read, rpc.endpoints),
        )
        await stack.enter_async_context(open_admin(settings, monitored))
        if settings.channelz_listen != "off":
            at = await stack.enter_async_context(serving_channelz(settings.channelz_listen))
            log.info("channelz is on port %d", at)
        await stack.enter_async_context(in_background(sweep(MailingDeletion(database)), "sweep"))
        await api.start()
        tune_gc()
        print(f"serving on {split_address(settings.listen)[0]}:{port}", flush=True)
        await _keep_running(stopped, _settle_grace(configured), dispatcher, api, postgres)


async def dispatch(settings: Settings, until_stdin_closes: bool = False) -> None:
    """Run one dispatcher until SIGTERM or SIGINT, or until its parent closes its standard input."""
    if settings.database_url is None:
        raise ConfigError(["MAILING_DSN should be the database of the service that this dispatcher works for."])
    stopped = _signalled()
    if until_stdin_closes:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
    configured = configured_endpoints(settings)
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracing(settings))
        endpoints = make_endpoints(configured, tracer)
        pool = await stack.enter_async_context(open_pool(settings.database_url, settings, DISPATCHER_CONNECTIONS))
        dispatcher = LocalDispatcher(pool, endpoints, settings, tracer)
        tune_gc()
        if until_stdin_closes:
            beside = reporting(dispatcher.samples, sys.stdout.fileno())
        else:
            watch = DatabaseWatch(Database(pool), _nobody)
            beside = open_admin(settings, Monitored(watch, stopped, [dispatcher.samples], CollectorRegistry()))
        async with beside:
            await _keep_running(stopped, _settle_grace(configured), dispatcher)


async def _migrate(settings: Settings) -> None:
    with _database(settings) as (dsn, _):
        for version in await prepare_database(dsn, settings):
            print(version)


async def _bring_up_to_date(dsn: str, settings: Settings) -> None:
    applied = await prepare_database(dsn, settings)
    if applied:
        log.info("schema brought to version %s", applied[-1], extra={"database": masked(dsn)})


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    """Lend the DSN to use, and the server behind it if it is our own."""
    if settings.database_url is not None:
        yield settings.database_url, None
        return
    postgres = EmbeddedPostgres(settings.data_dir)
    dsn = postgres.start()
    try:
        yield dsn, postgres
    finally:
        postgres.stop()


async def _keep_running(
    stopped: asyncio.Event,
    settle_grace: float,
    dispatcher: Dispatch,
    api: RpcServer | None = None,
    postgres: EmbeddedPostgres | None = None,
) -> None:
    """Dispatch and answer until it is stopped, then end in order.

    The order: health says NOT_SERVING and new calls are refused; nothing more is claimed;
    what is in flight ends, or is released, and is settled, within `settle_grace` seconds. Raise
    ServiceError when the dispatcher or the embedded Postgres ended without having been asked.
    """
    _install_level_signals(dispatcher)
    dispatching = asyncio.create_task(dispatcher.run())
    death = asyncio.create_task(postgres.died() if postgres else _never())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((dispatching, death, stopping), return_when=asyncio.FIRST_COMPLETED)
    cause = await _cause(dispatching, death)
    stopping.cancel()
    death.cancel()
    # Without its database nothing can be settled, so there is nothing to wait for.
    grace = 0.0 if cause else settle_grace
    closing = asyncio.create_task(api.stop(CALLS_GRACE if not cause else 0.0)) if api else None
    await dispatcher.stop(grace)
    await asyncio.wait([dispatching], timeout=grace + _MARGIN)
    dispatching.cancel()
    await asyncio.gather(dispatching, *([closing] if closing else []), return_exceptions=True)
    if cause:
        raise ServiceError(cause)


def _settle_grace(configured: Sequence[ConfiguredEndpoint]) -> float:
    """Return how long what is in flight may take to end and to be settled, in seconds."""
    return max((one.endpoint.total_timeout for one in configured), default=0.0) + SETTLE_GRACE


async def _cause(dispatching: asyncio.Task[None], death: asyncio.Task[str]) -> str:
    """Return why the service cannot go on; empty when it was asked to stop."""
    if death.done():
        return death.result()
    if not dispatching.done():
        return ""
    if error := dispatching.exception():
        log.error("the dispatcher failed", exc_info=error)
    return "The dispatcher ended by itself: the log says why."


async def _nobody(_: bool) -> None:
    """Hear whether the database answers where there is no API."""


async def _never() -> str:
    await asyncio.Event().wait()
    raise AssertionError


def _signalled() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second one ends the process at once."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop() -> None:
        log.info("stopping")
        stopped.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopped


def _install_level_signals(dispatcher: Dispatch) -> None:
    """From now on signals change the log level, in all processes of the service."""

    def shift(number: int, steps: int) -> None:
        shift_level(steps)
        dispatcher.signal(number)

    for number, steps in zip(LEVEL_SIGNALS, (1, -1), strict=True):
        asyncio.get_running_loop().add_signal_handler(number, shift, number, steps)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEVEL_SIGNALS)  # a server holds them back until here


def _run(settings: Settings, work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    use_one_arena()
    configure_logs(settings.log_level, settings.log_format, settings.log_file)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(work())
    except ConfigError as error:
        return _fail(error, 2)
    except (EmbeddedPostgresError, DatabaseError, CannotListen, CannotOpenAdmin, ServiceError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        log.exception("the service failed")
        return 1
    return 0


def _fail(error: Exception, status: int) -> int:
    print(error, file=sys.stderr)
    return status


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not made for every system
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main(arguments: Sequence[str]) -> int:
    """`serve`, `migrate` or `dispatch`, with the settings of the environment. Returns the exit status."""
    try:
        settings = load_settings()
    except ConfigError as error:
        return _fail(error, 2)
    match arguments:
        case ["serve"]:
            return run(settings)
        case ["migrate"]:
            return run_migrations(settings)
        case ["dispatch", *options] if options in ([], [_CHILD]):
            return run_dispatcher(settings, until_stdin_closes=bool(options))
    print("usage: python -m server.main serve|migrate|dispatch", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
