"""What a mailing costs on a cluster of Citus: messages a second, and CPU per message on every node.

The cluster is given: `--dsn` is an empty database on its coordinator, which is set up here and stays as it
is afterwards. CPU is read of nodes whose Postgres runs on this machine; of others it is null. As in
`throughput`, the benchmark fails unless ledger and endpoint agree exactly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from bench.endpoint import message_ids, start_endpoint
from bench.measure import is_postgres, parent_of, postgres_cpu_seconds, say
from bench.service import BenchmarkFailed, running_service
from bench.throughput import compare, deliver, import_all

_NODES = (
    "SELECT nodeid, nodename || ':' || nodeport AS name, groupid = 0 AS coordinator FROM pg_dist_node ORDER BY groupid"
)
_CHECKPOINTERS = """
SELECT nodeid, result FROM run_command_on_all_nodes(
  $$SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'$$
)
"""

COORDINATOR = "coordinator"

WATCHED = 1.0
"""Seconds between two looks at the mailing, each of which asks all nodes."""


async def set_up(dsn: str) -> None:
    """Lay the tables out. Raise BenchmarkFailed when the cluster cannot be used."""
    command = str(Path(sys.executable).with_name("mailing-server"))
    process = await asyncio.create_subprocess_exec(
        *(command, "migrate", "--distribute"),
        env={**os.environ, "MAILING_DSN": dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkFailed(output.decode())
    say(output.decode().strip())


async def servers(connection: asyncpg.Connection) -> dict[str, int | None]:
    """Return the first process of every node's Postgres by the node's name, None where it runs elsewhere."""
    checkpointers = {row["nodeid"]: int(row["result"]) for row in await connection.fetch(_CHECKPOINTERS)}
    found: dict[str, int | None] = {}
    for row in await connection.fetch(_NODES):
        pid = checkpointers[row["nodeid"]]
        name = COORDINATOR if row["coordinator"] else row["name"]
        found[name] = parent_of(pid) if is_postgres(pid) else None
    return found


def seconds(postmasters: Mapping[str, int | None]) -> dict[str, float | None]:
    """Return the CPU time of each node's Postgres so far."""
    return {name: None if pid is None else postgres_cpu_seconds(pid) for name, pid in postmasters.items()}


def per_message(
    before: Mapping[str, float | None], after: Mapping[str, float | None], messages: int
) -> dict[str, float | None]:
    """Return the microseconds of CPU that each node spent per message."""
    spent = {name: (start, after[name]) for name, start in before.items()}
    return {
        name: None if start is None or end is None else round((end - start) / messages * 1e6, 1)
        for name, (start, end) in spent.items()
    }


def share(cpu: Mapping[str, float | None]) -> float | None:
    """Return the coordinator's share of all nodes' CPU; None when one of them is not known."""
    known: list[float] = [value for value in cpu.values() if value is not None]
    mine, total = cpu.get(COORDINATOR), sum(known, start=0.0)
    return round(mine / total, 3) if mine is not None and len(known) == len(cpu) and total else None


async def measure(dsn: str, messages: int, kind: str = "auto", concurrency: int = 1024) -> dict[str, Any]:
    """Deliver one mailing on the cluster and return everything measured on it."""
    await set_up(dsn)
    endpoint = start_endpoint(kind=kind)
    settings = {"MAILING_DSN": dsn, "MAILING_ENDPOINT_MAX_CONCURRENCY": str(concurrency)}
    try:
        async with running_service(endpoint.url, settings=settings) as service:
            await import_all(service, messages)
            postmasters = await servers(service.postgres)
            before = seconds(postmasters)
            mailing, result = await deliver(service, messages, WATCHED)
            cpu = per_message(before, seconds(postmasters), messages)
            result |= compare(await service.ledger_ids(mailing.id), Counter(message_ids(endpoint)))
    finally:
        endpoint.stop()
    del result["postgres_cpu_us_per_message"], result["wal_bytes_per_message"]
    result |= {"nodes_cpu_us_per_message": cpu, "coordinator_share": share(cpu)}
    if not result["settle_to_ledger_exact"] or result["delivered"] != messages:
        raise BenchmarkFailed(f"ledger and endpoint differ: {json.dumps(result)}")
    return {"bench": "cluster", **result}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench cluster", description=__doc__)
    parser.add_argument("--dsn", required=True, help="an empty database on the coordinator of a Citus cluster")
    parser.add_argument("--messages", type=int, default=100_000, help="how many clients and messages (100000)")
    parser.add_argument("--endpoint", default="auto", choices=("auto", "nginx", "small"), help="which endpoint (auto)")
    parser.add_argument("--concurrency", type=int, default=1024, help="most requests in flight at once (1024)")
    options = parser.parse_args(arguments)
    return asyncio.run(measure(options.dsn, options.messages, options.endpoint, options.concurrency))
