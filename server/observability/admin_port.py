"""What operators look at: the admin port with `/metrics`, `/healthz` and `/readyz`.

Beside the API, so that it answers while the API is full, and on loopback unless configured
otherwise: callers can read metrics there and change nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dispatcher.heartbeat import CANNOT_RECORD
from dispatcher.recording import PATIENCE
from server.config import DEFAULT_ADMIN_LISTEN, Settings, split_address
from server.observability.admin_http import AdminHttp
from server.observability.health import DatabaseWatch
from server.observability.metrics import Samples, ServiceCollector
from server.observability.metrics.backlog import BacklogGauges
from server.storage.schema_watch import NEWER_SCHEMA

log = logging.getLogger(__name__)
_OPENMETRICS = "application/openmetrics-text"


class CannotOpenAdmin(Exception):
    """The admin port cannot be listened on. `str()` of it is a sentence for people."""


@dataclass(frozen=True, slots=True)
class AdminSources:
    """What the admin port shows. `backlog` is None where the process has no API."""

    watch: DatabaseWatch
    stopped: asyncio.Event
    metrics: Sequence[Callable[[], Samples]]
    registry: CollectorRegistry
    backlog: BacklogGauges | None = None

    def samples(self) -> Samples:
        """Return the metrics of the database and of the backlog."""
        samples: Samples = {
            "mailing_database_up": {(): self.watch.up},
            "mailing_database_errors_total": {("health",): self.watch.failures},
        }
        return samples | (self.backlog.samples() if self.backlog else {})

    def why_idle(self) -> str:
        """Return why dispatchers of this process claim less than they could, or nothing; '' when they do not."""
        if self._most("mailing_dispatcher_unrecorded_seconds") >= PATIENCE:
            return CANNOT_RECORD
        return NEWER_SCHEMA if self._most("mailing_dispatcher_newer_schema") else ""

    def _most(self, name: str) -> float:
        values = [value for source in self.metrics for value in source().get(name, {}).values()]
        return max((value for value in values if not isinstance(value, list)), default=0.0)


@asynccontextmanager
async def open_admin(settings: Settings, sources: AdminSources) -> AsyncIterator[None]:
    """Watch the database and serve the admin port, where there is one, inside the block.

    Raise CannotOpenAdmin when the configured port is taken; without a configured one, a taken port is only logged.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(sources.watch.running())
        if settings.admin_listen != "off":
            if sources.backlog is not None:
                stack.push_async_callback(sources.backlog.close)
            await _listen(stack, settings, _Pages(sources))
        yield


async def _listen(stack: AsyncExitStack, settings: Settings, pages: _Pages) -> None:
    address = settings.admin_listen or DEFAULT_ADMIN_LISTEN
    host, port = split_address(address)
    http = AdminHttp([Route(f"/{page.__name__}", page) for page in (pages.metrics, pages.healthz, pages.readyz)])
    try:
        port = await http.start(host, port)
    except OSError as error:
        sentence = f"Cannot listen on {address} (MAILING_ADMIN_LISTEN): {(error.strerror or str(error)).lower()}."
        if settings.admin_listen is not None:
            raise CannotOpenAdmin(sentence) from error
        log.warning("%s There are no metrics of this process: name another address, or off.", sentence)
        return
    stack.push_async_callback(http.stop)
    log.info("metrics and health are on http://%s:%d", host, port)


class _Pages:
    """What the paths answer."""

    def __init__(self, sources: AdminSources) -> None:
        self._sources = sources
        self._registry = sources.registry
        self._registry.register(ServiceCollector(_version(), [*sources.metrics, sources.samples]))
        ProcessCollector(registry=self._registry)

    async def metrics(self, request: Request) -> Response:
        """Tell everything there is, as Prometheus or OpenMetrics text, whichever is asked for."""
        if self._sources.backlog is not None:
            await self._sources.backlog.refresh()
        # Not the caller's own words: the library chokes on versions that it does not know.
        wanted = f"{_OPENMETRICS}; version=1.0.0" if _OPENMETRICS in request.headers.get("accept", "") else ""
        encode, content_type = choose_encoder(wanted)
        return Response(encode(self._registry), headers={"content-type": content_type})

    async def healthz(self, _: Request) -> Response:
        """Say that the process is alive and its loop turns."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Say whether calls may be sent here."""
        if self._sources.stopped.is_set():
            return PlainTextResponse("stopping\n", HTTPStatus.SERVICE_UNAVAILABLE)
        if not self._sources.watch.up:
            return PlainTextResponse("the database is away\n", HTTPStatus.SERVICE_UNAVAILABLE)
        if why := self._sources.why_idle():
            # Callers of the API are served all the same: the other replicas would be no better off.
            serves = self._sources.backlog is not None
            status = HTTPStatus.OK if serves else HTTPStatus.SERVICE_UNAVAILABLE
            return PlainTextResponse(f"{'ready, but ' if serves else ''}{why}\n", status)
        return PlainTextResponse("ready\n")


def _version() -> str:
    try:
        return version("mailing")
    except PackageNotFoundError:
        return "0"
