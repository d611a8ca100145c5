"""The composition root: settings → database → schema → API and dispatcher, in this order.

Standard output gets one line, `serving on HOST:PORT`, when calls are answered, and one more with the
address of the console where there is one; everything else goes to standard error. Exit status: 0 after
SIGTERM, SIGINT or SIGHUP, 2 for invalid settings, 1 for any other failure. What the parts are made of is
decided here, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry

from dispatcher.tasks import in_background
from dispatcher.tracing import Tracer
from server.api import CannotListen
from server.api.channelz import serving_channelz
from server.api.connections import HostBound
from server.api.encoding.schedules import TEMPLATES
from server.api.interceptors.chain import interceptor_chain
from server.config import ConfigError, Settings, environment_of, load_settings, split_address
from server.config.calendars import read_calendars
from server.config.types import ConfiguredEndpoint, open_hours
from server.domain.clients import ReceiveWindow
from server.domain.findings import Finding
from server.embedded_postgres import EmbeddedPostgresError
from server.endpoints.probes import EndpointProbes
from server.endpoints.renewal import Renew, keep_secrets, keep_webhook_secrets
from server.endpoints.senders import Endpoints, configured_endpoints, make_endpoints
from server.endpoints.webhooks_file import ConfiguredWebhook, read_webhooks
from server.observability.admin_port import AdminSources, CannotOpenAdmin, open_admin
from server.observability.health import DatabaseWatch
from server.observability.logging import configure_logs
from server.observability.metrics.backlog import BacklogGauges
from server.observability.metrics.database import error_samples, pool_samples, standby_samples
from server.observability.metrics.reports import reporting
from server.observability.tracing import tracing
from server.receipts import CannotOpenReceipts, serving_receipts
from server.reports import MailRefused
from server.runtime.access import read_access
from server.runtime.api_services import build_api
from server.runtime.api_settings import ApiSettings
from server.runtime.console import InnerSocket, console_alone, console_options, serving_console
from server.runtime.daily_report import sending_reports, show_report
from server.runtime.deletion_sweeper import sweep, tend_clients
from server.runtime.descriptors import needed_descriptors, raise_descriptor_limit
from server.runtime.lifecycle import ServiceError, database_of, run_until_stopped, upgrade_schema
from server.runtime.local_dispatcher import Dispatch, LocalDispatcher, free_batches
from server.runtime.maintenance import maintenance_of
from server.runtime.process import install_stop_signals, new_event_loop, tune_gc, use_one_arena
from server.runtime.supervisor import Supervisor
from server.schedules import MailingMaker
from server.storage.change_feed import ChangeFeedStore
from server.storage.database import Database, SharedDatabase
from server.storage.events import EventStore
from server.storage.installation import read_installation
from server.storage.pool import (
    DatabaseError,
    check_database,
    cluster_problems,
    open_pool,
    open_standby,
    prepare_database,
)
from server.storage.removals import Removals
from server.storage.reports import BacklogStore
from server.storage.schedules import ScheduleQueue
from server.storage.timetables import store_timetables
from server.storage.verification import Verification
from server.storage.webhooks import WebhookStore
from server.webhooks import Webhooks
from server.webhooks.worker import Feeds

log = logging.getLogger("server.main")  # also when run as __main__

SETTLE_GRACE = 5.0
"""Seconds to settle at shutdown, on top of the longest request."""

DISPATCHER_CONNECTIONS = 13
"""Maximum connections of a dispatcher: claims, settles, planning, confirming, rates, and one that listens."""

_CHILD = "--until-stdin-closes"


def run(settings: Settings) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP and return the exit status."""
    return _run(settings, lambda: serve(settings))


def run_migrations(
    settings: Settings, applied: Callable[[str], object] = print, laid_out: Callable[[str], object] | None = None
) -> int:
    """Upgrade the database to this release's schema, call `applied` with each version, return the exit status.

    With `laid_out` the tables are laid out over a cluster, and it is called with the name of each that was not yet.
    """
    return _run(settings, lambda: _migrate(settings, applied, laid_out))


def run_verification(settings: Settings, repair: bool, found: Callable[[Finding], object]) -> int:
    """Verify the records of the database, call `found` with what is wrong, return the exit status."""
    return _run(settings, lambda: _verify(settings, repair, found))


def run_report(settings: Settings, day: date | None, to: str, show: Callable[[str], object]) -> int:
    """Show the report of a day, or send it to the addresses in `to`; return the exit status."""
    return _run(settings, lambda: _report(settings, day, to, show))


def run_dispatcher(settings: Settings, until_stdin_closes: bool = False) -> int:
    """Run a dispatcher alone, without API, until SIGTERM, SIGINT or SIGHUP and return the exit status.

    Its database is another service's, so one must be set.
    """
    return _run(settings, lambda: dispatch(settings, until_stdin_closes))


def run_console(settings: Settings, address: str, tls: bool, ca_file: Path | None) -> int:
    """Serve the console alone, for the service at `address`, until SIGTERM or SIGINT and return the exit status."""
    return _run(settings, lambda: show_console(settings, address, tls, ca_file))


async def show_console(settings: Settings, address: str, tls: bool, ca_file: Path | None) -> None:
    """Run the console until SIGTERM, SIGINT or SIGHUP."""
    stopped = install_stop_signals()
    options = console_alone(settings, address, tls, ca_file)
    async with serving_console(options) as url:
        print(f"console on {url}", flush=True)
        await stopped.wait()


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM, SIGINT or SIGHUP. Raise one of the errors that `run` turns into a status."""
    stopped = install_stop_signals()
    access, (window, calendars) = read_access(settings), _timetables(settings)
    configured = configured_endpoints(settings)
    connections = settings.pool_size + (0 if settings.dispatchers else DISPATCHER_CONNECTIONS)
    callers = raise_descriptor_limit(
        needed_descriptors(settings, connections, () if settings.dispatchers else configured)
    )
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracing(settings))
        endpoints = make_endpoints(configured, tracer)
        dsn, postgres = stack.enter_context(database_of(settings))
        await upgrade_schema(dsn, settings)
        pool = await stack.enter_async_context(open_pool(dsn, settings))
        if postgres:
            await free_batches(pool)
        dispatcher = await _dispatcher(stack, settings, dsn, endpoints, tracer)
        await stack.enter_async_context(access.refreshing_keys())
        values, registry, probes = ApiSettings.of(settings, callers), CollectorRegistry(), EndpointProbes(configured)
        interceptors = interceptor_chain(registry, access.authenticator, values.limits, tracer)
        standby = await stack.enter_async_context(open_standby(settings, Database(pool)))
        calls = SharedDatabase(pool, replica=standby)
        background = calls.service
        await store_timetables(background, window, calendars)
        subscribers = read_webhooks(settings.webhooks_file) if settings.webhooks_file else []
        webhooks = Webhooks([one.config for one in subscribers], WebhookStore(background, uuid4()))
        maker = MailingMaker(ScheduleQueue(background, TEMPLATES))
        api = await build_api(
            calls, probes, values, access, interceptors, dispatcher.hint, webhooks, hint_schedules=maker.hint
        )
        port = api.bind(settings.listen)
        inner = InnerSocket(api, stack) if settings.console_listen != "off" else None
        console = console_options(settings, inner.address, None) if inner else None
        of_database = (partial(error_samples, calls, "api"), partial(pool_samples, pool, "api"))
        reports = await stack.enter_async_context(sending_reports(settings, background))
        receipts = await stack.enter_async_context(serving_receipts(settings, configured, background))
        maintenance = maintenance_of(background, settings)
        await maintenance.prepare()
        sources = AdminSources(
            watch=DatabaseWatch(background, api.ready, written=dispatcher.written_at),
            stopped=stopped,
            metrics=[
                *(dispatcher.samples, api.samples, webhooks.samples, maintenance.samples, receipts.samples, reports),
                *(*of_database, partial(standby_samples, standby)),
            ],
            registry=registry,
            backlog=BacklogGauges(BacklogStore(background).read, probes.names),
        )
        await stack.enter_async_context(open_admin(settings, sources))
        await stack.enter_async_context(serving_channelz(settings.channelz_listen))
        if subscribers:
            await _notify(stack, webhooks, subscribers, background)
        await _keep_secrets(stack, configured, dispatcher, probes.renew, receipts.renew)
        await stack.enter_async_context(in_background(maker.run(), "schedules"))
        await stack.enter_async_context(in_background(maintenance.run(), "maintenance"))
        await _sweep(stack, settings, background)
        await api.start()
        bound = HostBound(port, values.transport.connections_per_host)
        await stack.enter_async_context(in_background(bound.run(), "connections of hosts"))
        tune_gc()
        url = await stack.enter_async_context(serving_console(console))
        print(f"serving on {split_address(settings.listen)[0]}:{port}", flush=True)
        if url:
            print(f"console on {url}", flush=True)
        await run_until_stopped(stopped, _settle_grace(configured), dispatcher, api, postgres)


async def _dispatcher(
    stack: AsyncExitStack, settings: Settings, dsn: str, endpoints: Endpoints, tracer: Tracer | None
) -> Dispatch:
    """Return what delivers: in this process, or processes beside it."""
    if settings.dispatchers:
        environment = environment_of(settings) | {"MAILING_DSN": dsn}
        return Supervisor(settings.dispatchers, environment, settings.log_file)
    # Connections of its own: outcomes are written however many calls there are.
    own = await stack.enter_async_context(open_pool(dsn, settings, DISPATCHER_CONNECTIONS))
    return LocalDispatcher(own, endpoints, settings, tracer)


async def _keep_secrets(
    stack: AsyncExitStack, configured: Sequence[ConfiguredEndpoint], dispatcher: Dispatch, *also: Renew
) -> None:
    """Keep the secrets of endpoints current; `also` get the renewed endpoints, too."""
    renew = (lambda one: dispatcher.renew(one.endpoint), *also)
    keeping = keep_secrets(configured, *renew, refused=dispatcher.refused)
    await stack.enter_async_context(in_background(keeping, "secrets of endpoints"))


async def _notify(
    stack: AsyncExitStack, webhooks: Webhooks, subscribers: Sequence[ConfiguredWebhook], database: Database
) -> None:
    """Tell the subscribers of the configuration of events, and keep their secrets current."""
    buckets = (await read_installation(database)).buckets
    feeds = Feeds(ChangeFeedStore(database, buckets), EventStore(database, buckets))
    await stack.enter_async_context(webhooks.serving(feeds))
    keeping = keep_webhook_secrets(subscribers, webhooks.renew)
    await stack.enter_async_context(in_background(keeping, "secrets of webhooks"))


async def _sweep(stack: AsyncExitStack, settings: Settings, database: Database) -> None:
    """Remove in the background what nobody needs any more."""
    keep = timedelta(days=settings.phone_memory_days)
    await stack.enter_async_context(in_background(sweep(Removals(database)), "removals"))
    await stack.enter_async_context(in_background(tend_clients(database, keep), "client sweeper"))


async def dispatch(settings: Settings, until_stdin_closes: bool = False) -> None:
    """Run one dispatcher until SIGTERM, SIGINT or SIGHUP, or until its parent closes its standard input."""
    if settings.database_url is None:
        raise ConfigError(["MAILING_DSN should be the database of the service that this dispatcher works for."])
    stopped = install_stop_signals()
    if until_stdin_closes:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
    configured = configured_endpoints(settings)
    raise_descriptor_limit(needed_descriptors(settings, DISPATCHER_CONNECTIONS, configured))
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracing(settings))
        endpoints = make_endpoints(configured, tracer)
        await check_database(settings.database_url, settings)
        pool = await stack.enter_async_context(open_pool(settings.database_url, settings, DISPATCHER_CONNECTIONS))
        dispatcher = LocalDispatcher(pool, endpoints, settings, tracer)
        await _keep_secrets(stack, configured, dispatcher)
        tune_gc()
        if until_stdin_closes:
            beside = reporting(dispatcher.samples, sys.stdout.fileno())
        else:
            watch = DatabaseWatch(Database(pool), written=dispatcher.written_at)
            beside = open_admin(settings, AdminSources(watch, stopped, [dispatcher.samples], CollectorRegistry()))
        async with beside:
            await run_until_stopped(stopped, _settle_grace(configured), dispatcher)


async def _migrate(
    settings: Settings, applied: Callable[[str], object], laid_out: Callable[[str], object] | None
) -> None:
    with database_of(settings) as (dsn, _):
        versions, tables = await prepare_database(dsn, settings, lay_out=laid_out is not None)
        for version in versions:
            applied(version)
        if laid_out:
            for table in tables:
                laid_out(table)


async def _verify(settings: Settings, repair: bool, found: Callable[[Finding], object]) -> None:
    with database_of(settings, beside=True) as (dsn, _):
        for problem in await cluster_problems(dsn, settings):
            found(Finding("cluster", None, 0, problem))
        async with open_pool(dsn, settings, 2) as pool:
            for finding in await Verification(Database(pool)).run(repair):
                found(finding)


async def _report(settings: Settings, day: date | None, to: str, show: Callable[[str], object]) -> None:
    with database_of(settings, beside=True) as (dsn, _):
        async with open_pool(dsn, settings, 2) as pool:
            await show_report(settings, Database(pool), day, to, show)


def _timetables(settings: Settings) -> tuple[ReceiveWindow | None, dict[str, list[date]]]:
    """Return the window of clients without one, and the calendars. Raise ConfigError."""
    window = open_hours(settings.quiet_hours) if settings.quiet_hours else None
    return window, read_calendars(settings.holidays_file) if settings.holidays_file else {}


def _settle_grace(configured: Sequence[ConfiguredEndpoint]) -> float:
    """Return the maximum time to end and settle the requests in flight, in seconds."""
    return max((one.endpoint.total_timeout for one in configured), default=0.0) + SETTLE_GRACE


def _run(settings: Settings, work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    use_one_arena()
    configure_logs(settings.log_level, settings.log_format, settings.log_file)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(work())
    except ConfigError as error:
        return _fail(error, 2)
    except (
        EmbeddedPostgresError,
        DatabaseError,
        CannotListen,
        CannotOpenAdmin,
        CannotOpenReceipts,
        MailRefused,
        ServiceError,
    ) as error:
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


def main(arguments: Sequence[str]) -> int:
    """Run `serve`, `migrate` or `dispatch` with the settings of the environment and return the exit status."""
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
