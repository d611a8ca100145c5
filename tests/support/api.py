"""The API as the service puts it together, on a database of a test; what a test leaves out has its default."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from server.api import ApiServer
from server.api.interceptors.chain import interceptor_chain
from server.api.tls import ServerTls
from server.auth import Authenticator
from server.config.types import ConfiguredEndpoint
from server.endpoints.probes import EndpointProbes
from server.observability.tracing import CallTracer
from server.runtime.access import Access
from server.runtime.api_services import build_api
from server.runtime.api_settings import ApiSettings
from server.storage.database import Pool, SharedDatabase
from server.webhooks import Webhooks


async def make_api(
    pool: Pool,
    *,
    hint: Callable[[], None] = lambda: None,
    registry: CollectorRegistry | None = None,
    authenticator: Authenticator | None = None,
    tls: ServerTls | None = None,
    reflection: bool = True,
    tracer: CallTracer | None = None,
    endpoints: Sequence[ConfiguredEndpoint] = (),
    settings: ApiSettings | None = None,
    webhooks: Webhooks | None = None,
) -> ApiServer:
    """Return the API, not yet bound; a call waits two seconds at most for a connection to the database."""
    settings, authenticator = settings or ApiSettings(), authenticator or Authenticator()
    interceptors = interceptor_chain(registry or CollectorRegistry(), authenticator, settings.limits, tracer)
    access = Access(authenticator, tls, reflection, None)
    database = SharedDatabase(pool, 2.0)
    return await build_api(database, EndpointProbes(endpoints), settings, access, interceptors, hint, webhooks)


@asynccontextmanager
async def serving(pool: Pool, address: str = "127.0.0.1:0", **parts: Any) -> AsyncIterator[tuple[ApiServer, str]]:
    """Lend a running API and its address; `parts` are those of `make_api`."""
    server = await make_api(pool, **parts)
    port = server.bind(address)
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
