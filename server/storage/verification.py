"""Verifies that the records agree with each other, while the service runs, and mends what can be mended.

Each step reads one mailing in one bucket from one snapshot, so it sees no half of a transaction and
holds up nobody. A repair locks what everybody locks who writes these rows, in the order of the whole
project: mailing, expansion, bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from dispatcher.model.batches import BATCH_SIZE
from dispatcher.model.states import Status
from server.storage.database import Database
from server.storage.queries import load_queries

MOST = 20
"""The most rows of one kind that are listed for a mailing and bucket."""

STEP_TIMEOUT = 600.0
"""Seconds that one statement may take: a bucket of a large mailing has millions of messages."""

_SQL = load_queries("verification.sql")


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction: what was checked, where, and what was found.

    `mailing_id` 0 is all of the bucket, `bucket` None all of the database.
    """

    check: str
    bucket: int | None
    mailing_id: int
    found: str
    mendable: bool = False


_Describe = Callable[[asyncpg.Record], str]

_CHECKS: dict[str, tuple[str, _Describe, bool]] = {
    "check_open_work": (
        "open work",
        lambda row: f"the pending message to client {row['client_id']} stands in {row['batches']} open batches",
        True,
    ),
    "check_places": (
        "open work",
        lambda row: f"client {row['client_id']} has {row['places']} messages",
        False,
    ),
    "check_counters": (
        "counters",
        lambda row: (
            f"{Status(row['status']).name}, reason {row['reason']}: "
            f"the counter says {row['counter']}, there are {row['messages']} messages"
        ),
        True,
    ),
    "check_attempts": (
        "attempts",
        lambda row: f"the counters say {row['counter']}, the messages {row['messages']}",
        False,
    ),
    "check_figures": (
        "report",
        lambda row: f"kind {row['kind']}, key {row['key']}: {row['figure']} instead of {row['messages']}",
        False,
    ),
    "check_failures": (
        "report",
        lambda row: f"{row['figure']} failures by minute, {row['messages']} failed messages",
        False,
    ),
    "check_feed": (
        "change feed",
        lambda row: f"{row['messages']} messages ended, the entries of the change feed end {row['entries']}",
        False,
    ),
}


class Verification:
    """Checks and mends records. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, repair: bool = False) -> list[Finding]:
        """Return every contradiction; with `repair` those that are left after mending."""
        findings = await self.verify_ledger()
        if repair:
            places = {(one.bucket, one.mailing_id) for one in findings if one.mendable and one.bucket is not None}
            for place in sorted(places):
                await self._mend(*place)
            findings = await self.verify_ledger() if findings else []
        return [*findings, *await self.verify_feed(), *await self.verify_keys()]

    async def verify_ledger(self) -> list[Finding]:
        """Return the contradictions between messages, open batches, counters, figures and change feed."""
        places = await self._database.fetch(*_SQL["list_verified"].bind())
        return [one for place in places for one in await self._verify(place["bucket"], place["mailing_id"])]

    async def _verify(self, bucket: int, mailing_id: int) -> list[Finding]:
        findings = []
        async with self._database.snapshot() as connection:
            for name, (check, describe, mendable) in _CHECKS.items():
                rows = await connection.fetch(*self._bound(name, bucket, mailing_id), timeout=STEP_TIMEOUT)
                findings += [Finding(check, bucket, mailing_id, describe(row), mendable) for row in rows]
        return findings

    def _bound(self, name: str, bucket: int, mailing_id: int) -> Sequence[object]:
        limit = {"most": MOST} if "most" in _SQL[name].names else {}
        return _SQL[name].bind(bucket=bucket, mailing_id=mailing_id, **limit)

    async def verify_feed(self) -> list[Finding]:
        """Return the buckets whose change feed has gaps."""
        rows = await self._database.fetch(*_SQL["list_feed_gaps"].bind())
        return [Finding("change feed", row["bucket"], 0, f"{row['missing']} entries are missing") for row in rows]

    async def verify_keys(self) -> list[Finding]:
        """Return the clients that are not found by their phone, or not in the bucket that their id names."""
        findings = []
        buckets = await self._database.fetch(*_SQL["list_all_buckets"].bind())
        for bucket in [row["bucket"] for row in buckets]:
            async with self._database.snapshot() as connection:
                statement = _SQL["list_lost_keys"].bind(bucket=bucket, most=MOST)
                rows = await connection.fetch(*statement, timeout=STEP_TIMEOUT)
            for row in rows:
                whom = "nobody" if row["found"] is None else f"client {row['found']}"
                findings.append(Finding("keys", bucket, 0, f"the phone of client {row['client_id']} leads to {whom}"))
        return findings

    async def _mend(self, bucket: int, mailing_id: int) -> None:
        key = {"bucket": bucket, "mailing_id": mailing_id}

        async def work(connection: asyncpg.Connection) -> None:
            if await connection.fetchval(*_SQL["lock_repaired"].bind(mailing_id=mailing_id)) is None:
                return
            await connection.execute(*_SQL["lock_expansion"].bind(**key))
            await connection.execute(*_SQL["lock_bucket"].bind(bucket=bucket))
            await connection.execute(*_SQL["take_in_anew"].bind(**key), timeout=STEP_TIMEOUT)
            await connection.execute(*_SQL["mend_counters"].bind(**key), timeout=STEP_TIMEOUT)
            await connection.execute(*_SQL["mend_open_work"].bind(**key, batch_size=BATCH_SIZE), timeout=STEP_TIMEOUT)

        await self._database.transact(work)
