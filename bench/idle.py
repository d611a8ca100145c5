"""What a service costs that has nothing to do: queries and CPU with many mailings scheduled for later.

Statements are counted in Postgres's own log where that can be read, by switching
log_statement on for the time of the measurement; transactions are counted beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bench.endpoint import start_endpoint
from bench.measure import say
from bench.service import Service, running_service

_STATEMENT = re.compile(rb"LOG:  (?:statement|execute [^:]*): ")
_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


async def schedule(service: Service, mailings: int) -> None:
    """Create `mailings` mailings that begin tomorrow or later, 64 at a time."""
    tomorrow = int(time.time()) + 86_400
    gate = asyncio.Semaphore(64)

    async def one(number: int) -> None:
        async with gate:
            await service.create_mailing(title=f"scheduled {number}", start_time=Timestamp(seconds=tomorrow + number))

    await asyncio.gather(*(one(number) for number in range(mailings)))


def log_file(postmaster: int | None) -> Path | None:
    """Return the file Postgres writes its log to, or None when it is not a readable file."""
    if postmaster is None:
        return None
    path = Path(f"/proc/{postmaster}/fd/2").resolve()
    return path if path.is_file() else None


class StatementCount:
    """Counts statements in Postgres's log while the block runs. `count` is None without a readable log."""

    def __init__(self, service: Service) -> None:
        self._postgres = service.postgres
        self._log = log_file(service.postmaster)
        self._begin = 0
        self.count: int | None = None

    async def __aenter__(self) -> StatementCount:
        if self._log is not None:
            # The harness's own statements stay out of it.
            await self._postgres.execute("SET log_statement = 'none'")
            await self._postgres.execute("ALTER SYSTEM SET log_statement = 'all'")
            await self._postgres.execute("SELECT pg_reload_conf()")
            self._begin = self._log.stat().st_size
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._log is not None:
            with self._log.open("rb") as log:
                log.seek(self._begin)
                self.count = len(_STATEMENT.findall(log.read()))


async def measure(mailings: int, settle: float, seconds: float) -> dict[str, Any]:
    """Schedule, wait `settle` seconds for the service to calm down, then look for `seconds`."""
    endpoint = start_endpoint(kind="small")
    try:
        async with running_service(endpoint.url) as service:
            say(f"scheduling {mailings:,} mailings")
            await schedule(service, mailings)
            say(f"waiting {settle:.0f} s, then measuring for {seconds:.0f} s")
            await asyncio.sleep(settle)
            async with StatementCount(service) as statements:
                transactions = await service.postgres.fetchval(_TRANSACTIONS)
                cpu, postgres_cpu = service.cpu_seconds(), service.postgres_cpu_seconds()
                began = time.monotonic()
                await asyncio.sleep(seconds)
                took = time.monotonic() - began
                cpu = service.cpu_seconds() - cpu
                postgres_after = service.postgres_cpu_seconds()
                # The harness's own look is one of them.
                transactions = await service.postgres.fetchval(_TRANSACTIONS) - transactions - 1
            per_minute = transactions / took * 60
            counted = per_minute if statements.count is None else statements.count / took * 60
            return {
                "bench": "idle",
                "mailings": mailings,
                "seconds": round(took, 1),
                "queries_per_minute": round(counted, 1),
                "queries_counted_by": "transactions" if statements.count is None else "log",
                "transactions_per_minute": round(per_minute, 1),
                "cpu_percent": round(cpu / took * 100, 2),
                "postgres_cpu_percent": None
                if postgres_cpu is None or postgres_after is None
                else round((postgres_after - postgres_cpu) / took * 100, 2),
            }
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench idle", description=__doc__)
    parser.add_argument("--mailings", type=int, default=10_000, help="how many are scheduled (10000)")
    parser.add_argument("--settle", type=float, default=30.0, help="seconds to wait before measuring (30)")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds to measure (60)")
    options = parser.parse_args(arguments)
    return asyncio.run(measure(options.mailings, options.settle, options.seconds))
