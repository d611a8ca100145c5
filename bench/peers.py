"""The same job through others: N messages, a durable outcome each, the same endpoint and Postgres.

PgQueuer and procrastinate are installed into `.bench-venv`, from the package index, the first
time. Each competitor first tries a few settings on a small share and runs the job at its
best one. The rate of ours is from the throughput benchmark, expansion included; for the
others filling their queue is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from bench.endpoint import message_ids, start_endpoint
from bench.measure import say
from bench.plot import Bar, write_bars
from bench.service import BenchmarkFailed, Service, running_service
from bench.throughput import compare, deliver, import_all
from bench.wrk import wrk_per_s

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".bench-venv"
PYTHON = str(ENVIRONMENT / "bin" / "python")
PACKAGES = ("aiohttp", "asyncpg", "pgqueuer>=1.6", "procrastinate>=3.10", "uvloop")
TRIAL_MESSAGES = 2_000
_LIMIT_SECONDS = 1_800.0


@dataclass(frozen=True, slots=True)
class Competitor:
    """A module of bench.competitors, what it is called in the results, and the settings to try."""

    name: str
    module: str
    settings: tuple[int, ...]


COMPETITORS = (
    Competitor("afternoon", "bench.competitors.afternoon", (2, 4, 8)),
    Competitor("pgqueuer", "bench.competitors.pgqueuer_queue", (100, 250, 500, 1_000)),
    Competitor("procrastinate", "bench.competitors.procrastinate_queue", (16, 64, 200)),
)


def install() -> None:
    """Make the competitors' environment unless it is there."""
    if (ENVIRONMENT / ".ready").exists():
        return
    say(f"installing {', '.join(PACKAGES)} into {ENVIRONMENT.name}")
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, stdout=sys.stderr)
    (ENVIRONMENT / ".ready").touch()


class Contest:
    """Runs competitors beside a service that is idle, on its Postgres, each in a database of its own."""

    def __init__(self, service: Service, url: str) -> None:
        self._service = service
        self._url = url
        self._runs = 0
        self.expected: Counter[int] = Counter()
        """The ids of all messages of all runs."""

    async def rate(self, competitor: Competitor, messages: int) -> float:
        """Return the messages a second of a competitor at its best setting."""
        trial = min(messages, TRIAL_MESSAGES)
        tried = {setting: await self._run(competitor, trial, setting) for setting in competitor.settings}
        best = max(tried, key=lambda setting: tried[setting])
        rate = await self._run(competitor, messages, best)
        say(f"  {competitor.name}: {rate:,.0f}/s at setting {best} of {competitor.settings}")
        return rate

    async def _run(self, competitor: Competitor, messages: int, setting: int) -> float:
        self._runs += 1
        # Above every id that the service gives in a benchmark.
        first_id = (1 << 52) + self._runs * (1 << 32)
        database = f"competitor_{os.getpid()}_{self._runs}"
        await self._service.postgres.execute(f"CREATE DATABASE {database}")
        try:
            dsn = dsn_of(self._service.postgres, database)
            options = (dsn, self._url, str(messages), str(first_id), str(setting))
            process = await asyncio.create_subprocess_exec(
                *(PYTHON, "-W", "ignore", "-m", competitor.module, *options), cwd=ROOT, stdout=asyncio.subprocess.PIPE
            )
            try:
                output, _ = await asyncio.wait_for(process.communicate(), _LIMIT_SECONDS)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        finally:
            await self._service.postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")
        if process.returncode:
            raise BenchmarkFailed(f"{competitor.name} ended with status {process.returncode}")
        result = json.loads(output.splitlines()[-1])
        if result["recorded"] != messages:
            raise BenchmarkFailed(f"{competitor.name} recorded {result['recorded']:,} of {messages:,} outcomes")
        self.expected.update(range(first_id, first_id + messages))
        return float(messages / result["seconds"])


def dsn_of(connection: asyncpg.Connection, database: str) -> str:
    """Return a DSN of another database on the server that `connection` is connected to."""
    address, parameters = connection._addr, connection._params
    host, port = address if isinstance(address, tuple) else (str(Path(address).parent), address.rpartition(".")[2])
    secret = f":{quote(parameters.password, safe='')}" if parameters.password else ""
    return f"postgresql://{parameters.user}{secret}@/{database}?host={quote(host, safe='')}&port={port}"


async def measure(messages: int) -> dict[str, Any]:
    """Run ours, then everybody else, on one endpoint and one Postgres."""
    endpoint = start_endpoint()
    try:
        async with running_service(endpoint.url) as service:
            wrk = await wrk_per_s(endpoint.url)
            await import_all(service, messages)
            mailing, ours = await deliver(service, messages)
            ledger = await service.ledger_ids(mailing.id)
            contest = Contest(service, endpoint.url)
            rates = {"ours": float(ours["delivered_per_s"])}
            for competitor in COMPETITORS:
                rates[competitor.name] = await contest.rate(competitor, messages)
            result = compare(ledger + contest.expected, Counter(message_ids(endpoint)))
            if wrk is not None:
                rates["wrk"] = wrk
    finally:
        endpoint.stop()
    return {
        "bench": "peers",
        "messages": messages,
        "rates": {name: round(rate) for name, rate in rates.items()},
        "ratios": {each.name: round(rates["ours"] / rates[each.name], 1) for each in COMPETITORS},
        **result,
    }


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__)
    parser.add_argument("--messages", type=int, default=30_000, help="messages each (30000)")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the rates, for instance docs/peers.svg")
    options = parser.parse_args(arguments)
    install()
    result = asyncio.run(measure(options.messages))
    if options.plot:
        bars = [Bar(name, rate) for name, rate in result["rates"].items()]
        write_bars(
            options.plot, f"{options.messages:,} messages, a durable outcome each (wrk: none)", "messages/s", bars
        )
    return result
