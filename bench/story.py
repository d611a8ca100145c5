"""How long the story of one client takes who got a thousand mailings, in a ledger of ten million messages.

Mailings and their messages are written by SQL, a tenth of the client's with a failed attempt; the story is then read
by GetClientStory in one page, one call at a time. Health/Check over the same connection is the yardstick.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.endpoint import start_endpoint
from bench.measure import quantile, say
from bench.report import milliseconds, quantiles
from bench.service import BenchmarkFailed, Service, running_service
from mailing.v1.client_service_pb2 import GetClientStoryRequest, GetClientStoryResponse
from mailing.v1.client_service_pb2_grpc import ClientServiceStub

PHONE = "79000000000"
"""The phone of the first client that `Service.import_clients` makes, who got every mailing."""

_MAILINGS = (
    "INSERT INTO mailings (id, title, text, starts_at, state, audience_mode, semantics, max_attempts, initial_backoff,"
    " max_backoff) SELECT nextval('mailing_id'), 'Sale', 'Hello', now(), 4, 2, 1, 5, '1 s', '1 min'"
    " FROM generate_series(1, $1::int) RETURNING id"
)
_MESSAGES = (
    "INSERT INTO messages"
    " (bucket, mailing_id, client_id, created_at, due_at, settled_at, status, attempts, duration_ms)"
    " SELECT n % $3::int, $1::bigint, n, now(), now(), now(), 2, 1, 7"
    " FROM generate_series($2::bigint, $2::bigint + $4::bigint - 1) n"
)
_ATTEMPT = (
    "INSERT INTO attempts (bucket, mailing_id, client_id, number, at, endpoint, error_class, duration_ms)"
    " VALUES ($1, $2, $3, 1, now(), 'default', 9, 10)"
)


async def fill(service: Service, messages: int, mailings: int) -> None:
    """Write as many messages of as many mailings, one of each to the client of PHONE."""
    postgres = service.postgres
    client = await postgres.fetchrow("SELECT bucket, id FROM clients WHERE phone = $1", PHONE)
    buckets = await postgres.fetchval("SELECT count(*) FROM buckets")
    ids = [row["id"] for row in await postgres.fetch(_MAILINGS, mailings)]
    for number, mailing_id in enumerate(ids):
        await postgres.execute(_MESSAGES, mailing_id, client["id"], buckets, messages // mailings)
        if number % 10 == 0:
            await postgres.execute(_ATTEMPT, client["bucket"], mailing_id, client["id"])
        if number % 100 == 99:
            say(f"  {number + 1:,} of {mailings:,} mailings")


async def story(service: Service, size: int) -> GetClientStoryResponse:
    """Return the client's story in one page."""
    request = GetClientStoryRequest(phone=PHONE, page_size=size)
    return await ClientServiceStub(service.channel).GetClientStory(request)


async def cpu_of(service: Service, call: Callable[[], Awaitable[object]], calls: int) -> dict[str, float | None]:
    """Return the milliseconds of CPU that a call takes in the service and in Postgres; None for one elsewhere."""
    before, postgres_before = service.cpu_seconds(), service.postgres_cpu_seconds()
    for _ in range(calls):
        await call()
    postgres = service.postgres_cpu_seconds()
    return {
        "service": round((service.cpu_seconds() - before) * 1000 / calls, 1),
        "postgres": None if postgres is None else round((postgres - (postgres_before or 0.0)) * 1000 / calls, 1),
    }


async def measure(messages: int, mailings: int, calls: int) -> dict[str, Any]:
    """Fill a ledger and read the story of the client who is in every mailing."""
    endpoint = start_endpoint(kind="small")
    try:
        async with running_service(endpoint.url, ["--dispatchers", "0"]) as service:
            await service.import_clients(1)
            say(f"writing {messages:,} messages of {mailings:,} mailings")
            await fill(service, messages, mailings)
            health: Any = health_pb2_grpc.HealthStub(service.channel)
            health_ms = await milliseconds(lambda: health.Check(health_pb2.HealthCheckRequest()), calls)
            story_ms = await milliseconds(lambda: story(service, mailings), calls)
            cpu_ms = await cpu_of(service, lambda: story(service, mailings), calls)
            parts = len((await story(service, mailings)).parts)
            if parts != mailings:
                raise BenchmarkFailed(f"the story has {parts:,} messages of {mailings:,}")
        yardstick = quantile(health_ms, 0.5)
        return {
            "bench": "story",
            "messages": messages,
            "of_client": mailings,
            **quantiles("story", story_ms, yardstick),
            "cpu_ms": cpu_ms,
        }
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench story", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000_000, help="messages of the ledger (10000000)")
    parser.add_argument("--of-client", type=int, default=1000, help="messages of the client, at most 1000 (1000)")
    parser.add_argument("--calls", type=int, default=50, help="calls (50)")
    options = parser.parse_args(arguments)
    return asyncio.run(measure(options.messages, options.of_client, options.calls))
