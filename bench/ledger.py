"""What the ledger's statements cost Postgres: claim and settle, by how many partitions there are, and by buckets.

Two databases of one server are measured in turns, so that what else the machine does falls on both: one with a
single partition and one with many, or two with different numbers of buckets. CPU is that of the server process.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from bench.measure import say
from dispatcher.model.batches import BATCH_SIZE, ClaimedBatch
from dispatcher.model.outcomes import Outcome, Settlement
from dispatcher.model.states import Reason, Status
from server.embedded_postgres import EmbeddedPostgres
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.migrate import migrate

_DELIVERED = Outcome(Status.DELIVERED, Reason.NONE, 1, 200, None, 7, None, None)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two databases."""

    name: str
    dsn: str
    buckets: int
    clients: int


async def _prepared(dsn: str, name: str, buckets: int, partitions: int, clients: int) -> Side:
    """Return a database with clients, and with a partition for each of so many mailings, or one for all."""
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    own = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    await migrate(own, buckets=buckets)
    connection = await asyncpg.connect(own)
    width = 1 if partitions > 1 else 1_000_000
    for number in range(partitions):
        await connection.execute("SELECT add_ledger_partition_v1($1, $2)", 1 + number * width, width)
    await connection.execute(
        "INSERT INTO clients (bucket, id, phone, timezone) SELECT n % $1, n, (79000000000 + n)::text, 'UTC'"
        " FROM generate_series($1::bigint, $1 + $2::bigint - 1) n",
        buckets,
        clients,
    )
    await connection.execute("VACUUM ANALYZE clients")
    await connection.close()
    return Side(name, own, buckets, clients)


_ADD_MAILING = (
    "INSERT INTO mailings (id, text, starts_at, state, audience_mode, semantics, max_attempts, initial_backoff,"
    " max_backoff) VALUES (nextval('mailing_id'), 'Hello', now(), 2, 2, 1, 5, '1 s', '1 min') RETURNING id"
)
_ADD_BATCHES = (
    "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, fresh)"
    " SELECT bucket, $1, nextval('batch_no'), array_agg(id ORDER BY id), now(), true"
    " FROM (SELECT bucket, id, row_number() OVER (PARTITION BY bucket ORDER BY id) / $2::int AS part FROM clients) c"
    " GROUP BY bucket, part"
)


class _Meter:
    """Measures the CPU of the one server process behind a pool."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seconds: dict[str, float] = {}

    async def measure(self, name: str, work: Callable[[], Any]) -> Any:
        before = self._cpu()
        result = await work()
        self.seconds[name] = self.seconds.get(name, 0.0) + self._cpu() - before
        return result

    def _cpu(self) -> float:
        """Return the seconds on a CPU so far, to the microsecond: the clock of /proc/PID/stat is too coarse."""
        return int(Path(f"/proc/{self._pid}/schedstat").read_text().split()[0]) / 1e9


async def _round(side: Side, mailings: int) -> dict[str, float]:
    """Return the microseconds of CPU per message of each step, for so many mailings to all clients."""
    async with asyncpg.create_pool(side.dsn, min_size=1, max_size=1) as pool:
        storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
        meter = _Meter(await pool.fetchval("SELECT pg_backend_pid()"))
        for warm in (True, *[False] * mailings):
            mailing_id = await pool.fetchval(_ADD_MAILING)
            await pool.execute(_ADD_BATCHES, mailing_id, BATCH_SIZE)
            batches = await meter.measure("claim", lambda: _claim(storage, side, mailing_id))  # noqa: B023
            await meter.measure("settle", lambda: _settle(storage, batches))  # noqa: B023
            if warm:
                meter.seconds.clear()
    return {name: seconds * 1e6 / (mailings * side.clients) for name, seconds in meter.seconds.items()}


async def _claim(storage: Any, side: Side, mailing_id: int) -> list[ClaimedBatch]:
    mailing = (await storage.queue.definitions([mailing_id]))[mailing_id]
    claimed = []
    for bucket in range(side.buckets):
        claimed += await storage.queue.claim(mailing, bucket, 1_000, 600.0, None)
    return claimed


async def _settle(storage: Any, batches: Sequence[ClaimedBatch]) -> None:
    for batch in batches:
        outcomes = [(client, 0, _DELIVERED) for client in batch.recipients.client_ids]
        if not await storage.queue.settle(Settlement.of(batch, "default", outcomes, True)):
            raise AssertionError("a batch was lost")


async def _compare(one: Side, other: Side, pairs: int, mailings: int) -> dict[str, Any]:
    """Return both sides' medians and the median ratio of pairs, in alternating order."""
    taken: dict[str, list[dict[str, float]]] = {one.name: [], other.name: []}
    for number in range(pairs):
        for side in (one, other) if number % 2 else (other, one):
            taken[side.name].append(await _round(side, mailings))
        say(f"pair {number + 1} of {pairs}: {taken[one.name][-1]} {taken[other.name][-1]}")
    result: dict[str, Any] = {}
    for step in ("claim", "settle"):
        first, second = ([figures[step] for figures in taken[side.name]] for side in (one, other))
        ratios = [a / b for a, b in zip(first, second, strict=True)]
        result[step] = {
            one.name: round(median(first), 2),
            other.name: round(median(second), 2),
            "ratio": round(median(ratios), 3),
        }
    return result


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure on a server of its own, with durability off: only CPU is of interest."""
    with tempfile.TemporaryDirectory() as folder:
        postgres = EmbeddedPostgres(Path(folder), {"fsync": "off", "max_wal_size": "4GB", "autovacuum": "off"})
        dsn = postgres.start()
        try:
            if options.buckets:
                sides = [await _prepared(dsn, f"of_{n}", n, 1, options.clients) for n in (16, options.buckets)]
            else:
                say(f"adding {options.partitions} partitions")
                counts = {"one": 1, "many": options.partitions}
                sides = [await _prepared(dsn, name, 16, n, options.clients) for name, n in counts.items()]
            figures = await _compare(sides[0], sides[1], options.pairs, options.mailings)
        finally:
            postgres.stop()
    return {"bench": "ledger", "clients": options.clients, "unit": "us of CPU per message", **figures}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench ledger", description=__doc__)
    parser.add_argument("--partitions", type=int, default=500, help="partitions to compare with one (500)")
    parser.add_argument("--buckets", type=int, help="compare so many buckets with 16 instead")
    parser.add_argument("--clients", type=int, default=40_000, help="clients of each mailing (40000)")
    parser.add_argument("--mailings", type=int, default=1, help="mailings of a round (1)")
    parser.add_argument("--pairs", type=int, default=9, help="rounds on each side (9)")
    return asyncio.run(measure(parser.parse_args(arguments)))
