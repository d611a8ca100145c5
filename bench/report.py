"""How long the statistics of a huge mailing take: GetMailingReport and GetMailing, one call at a time.

The mailing is delivered for real, to the end. Health/Check over the same connection is the
yardstick: the same round trip without any database. `long_report_*` is the report of a mailing that
was sent slowly, whose course has a row per minute and bucket, filled in by SQL: the dearest there is.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.endpoint import start_endpoint
from bench.measure import quantile, say
from bench.service import BenchmarkFailed, Service, running_service
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import GetMailingReportRequest, GetMailingReportResponse
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub

_WARM_UP = 10


async def milliseconds(call: Callable[[], Awaitable[object]], calls: int) -> list[float]:
    """Return how long each of `calls` calls took, after some that do not count."""
    found = []
    for number in range(_WARM_UP + calls):
        began = time.perf_counter()
        await call()
        if number >= _WARM_UP:
            found.append((time.perf_counter() - began) * 1000)
    return found


def quantiles(name: str, values: Sequence[float], yardstick: float) -> dict[str, Any]:
    """Return p50 and p99 of times under `name`, and how many times the yardstick the p50 is."""
    p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
    return {
        f"{name}_ms": {"p50": round(p50, 2), "p99": round(p99, 2)},
        f"{name}_to_health": round(p50 / yardstick, 1),
    }


async def report_of(service: Service, mailing_id: int) -> GetMailingReportResponse:
    """Return a mailing's report."""
    request = GetMailingReportRequest(mailing_id=mailing_id)
    return await MailingServiceStub(service.channel).GetMailingReport(request)


def check(report: GetMailingReportResponse, messages: int) -> None:
    """Raise BenchmarkFailed unless every sum of the report is `messages`."""
    sums = {
        "statuses": sum(one.count for one in report.statuses),
        "attempts": sum(one.count for one in report.attempts),
        "latencies": sum(one.count for one in report.latencies),
        "minutes": sum(one.delivered for one in report.minutes),
    }
    if set(sums.values()) != {messages}:
        raise BenchmarkFailed(f"{messages:,} messages were delivered, the report has {sums}")


async def slow_mailing(service: Service, days: int) -> int:
    """Make a mailing whose course has something in every minute and bucket of `days`; return its id."""
    mailing = await service.create_mailing(tags=["nobody"], audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
    postgres: asyncpg.Connection = service.postgres
    await postgres.execute(
        "INSERT INTO mailing_figures (bucket, mailing_id, kind, key, n)"
        " SELECT bucket, $1, 3, minute, 1 FROM generate_series(1, $2::int * 1440) AS minute CROSS JOIN buckets",
        mailing.id,
        days,
    )
    return mailing.id


async def measure(messages: int, calls: int, days: int) -> dict[str, Any]:
    """Deliver a mailing and measure its statistics on the service that did."""
    endpoint = start_endpoint()
    try:
        async with running_service(endpoint.url) as service:
            say(f"importing {messages:,} clients")
            await service.import_clients(messages)
            say(f"delivering {messages:,} messages")
            created = await service.create_mailing(audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT)
            await service.completed(created.id)
            check(await report_of(service, created.id), messages)
            slow = await slow_mailing(service, days)
            say(f"{calls} calls of each")
            health: Any = health_pb2_grpc.HealthStub(service.channel)
            health_ms = await milliseconds(lambda: health.Check(health_pb2.HealthCheckRequest()), calls)
            progress_ms = await milliseconds(lambda: service.get_mailing(created.id), calls)
            report_ms = await milliseconds(lambda: report_of(service, created.id), calls)
            long_ms = await milliseconds(lambda: report_of(service, slow), calls)
            long = await report_of(service, slow)
        yardstick = quantile(health_ms, 0.5)
        return {
            "bench": "report",
            "messages": messages,
            "calls": calls,
            "health_ms": {"p50": round(yardstick, 2), "p99": round(quantile(health_ms, 0.99), 2)},
            **quantiles("progress", progress_ms, yardstick),
            **quantiles("report", report_ms, yardstick),
            "long_days": days,
            "long_step_minutes": long.step.seconds // 60,
            **quantiles("long_report", long_ms, yardstick),
        }
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many clients and messages (1000000)")
    parser.add_argument("--calls", type=int, default=50, help="calls of each kind (50)")
    parser.add_argument("--days", type=int, default=30, help="how long the slow mailing took (30)")
    options = parser.parse_args(arguments)
    return asyncio.run(measure(options.messages, options.calls, options.days))
