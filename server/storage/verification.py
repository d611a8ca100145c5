"""Verifies that the records agree with each other, while the service runs, and mends what can be mended.

Each step reads one mailing in one bucket from one snapshot, so it sees no half of a transaction and
holds up nobody; between two steps it holds nothing. A standby that is close behind is read in place of the database.
A repair locks what everybody locks who writes these rows, in the order of all: mailing, expansion, bucket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple, TypeVar

import asyncpg

from dispatcher.model.batches import BATCH_SIZE
from dispatcher.model.states import MailingState, Status
from server.domain.errors import DatabaseUnavailable, Kind, NotFound
from server.domain.findings import BEGINNING, Checked, Finding, FindingKind, Place
from server.storage.database import Database
from server.storage.mailing_retry import reopen
from server.storage.queries import load_queries

MOST = 20
"""The most rows of one kind that are listed for a mailing and bucket."""

STEP_TIMEOUT = 600.0
"""Seconds that one statement may take: a bucket of a large mailing has millions of messages."""

_PLACES = 1000
"""Mailings of a bucket that are listed at once."""

_SQL = load_queries("verification.sql")
_MAILINGS = load_queries("mailings.sql")

Result = TypeVar("Result")


class _Check(NamedTuple):
    """One statement: what it checks, what a row of it is and says, and whether a repair mends that."""

    check: str
    kind: Callable[[asyncpg.Record], FindingKind]
    sentence: Callable[[asyncpg.Record], str]
    mendable: bool = False

    def finding(self, row: asyncpg.Record, place: Place) -> Finding:
        """Return the finding of a row."""
        kind, found = self.kind(row), self.sentence(row)
        return Finding(self.check, *place, found, self.mendable, kind, row.get("client_id", 0))


def _always(kind: FindingKind) -> Callable[[asyncpg.Record], FindingKind]:
    return lambda row: kind


def _kind_of_places(row: asyncpg.Record) -> FindingKind:
    """Return what it means that a client has several messages, of which some are pending."""
    if row["pending"] > 1:
        return FindingKind.IN_TWO_BATCHES
    return FindingKind.SETTLED_IN_BATCH if row["pending"] else FindingKind.KEY


def _owner(client_id: int | None) -> str:
    return "nobody" if client_id is None else f"client {client_id}"


_OF_MAILING: dict[str, _Check] = {
    "check_open_work": _Check(
        "open work",
        lambda row: FindingKind.IN_TWO_BATCHES if row["batches"] else FindingKind.NOT_IN_BATCH,
        lambda row: f"the pending message to client {row['client_id']} stands in {row['batches']} open batches",
        mendable=True,
    ),
    "check_places": _Check(
        "open work",
        _kind_of_places,
        lambda row: f"client {row['client_id']} has {row['places']} messages, {row['pending']} of them pending",
    ),
    "check_left_over": _Check(
        "open work",
        _always(FindingKind.LEFT_OVER),
        lambda row: f"{row['batches']} open batches belong to a mailing that is completed",
        mendable=True,
    ),
    "check_counters": _Check(
        "counters",
        _always(FindingKind.COUNTER),
        lambda row: (
            f"{Status(row['status']).name}, reason {row['reason']}: "
            f"the counter says {row['counter']}, there are {row['messages']} messages"
        ),
        mendable=True,
    ),
    "check_attempts": _Check(
        "attempts",
        _always(FindingKind.COUNTER),
        lambda row: f"the counters say {row['counter']}, the messages {row['messages']}",
    ),
    "check_figures": _Check(
        "report",
        _always(FindingKind.COUNTER),
        lambda row: f"kind {row['kind']}, key {row['key']}: {row['figure']} instead of {row['messages']}",
    ),
    "check_failures": _Check(
        "report",
        _always(FindingKind.COUNTER),
        lambda row: f"{row['figure']} failures by minute, {row['messages']} failed messages",
    ),
    "check_feed": _Check(
        "change feed",
        _always(FindingKind.FEED),
        lambda row: f"{row['messages']} messages ended, the entries of the change feed end {row['entries']}",
    ),
}

_OF_BUCKET: dict[str, _Check] = {
    "find_feed_gap": _Check(
        "change feed", _always(FindingKind.FEED), lambda row: f"{row['missing']} entries are missing"
    ),
    "list_lost_keys": _Check(
        "keys",
        _always(FindingKind.KEY),
        lambda row: f"the phone of client {row['client_id']} leads to {_owner(row['found'])}",
    ),
}


class Verification:
    """Checks and mends records. Every method may raise DatabaseUnavailable.

    However many audits there are at once, one place is looked at at a time: others read many rows, too.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Lock()

    async def run(self, repair: bool = False) -> list[Finding]:
        """Return every contradiction; with `repair` those that are left after mending."""
        findings = await self._all()
        if repair:
            places = {Place(one.bucket, one.mailing_id) for one in findings if one.mendable and one.bucket is not None}
            for place in sorted(places):
                await self._mend(place)
            findings = await self._all() if places else findings
        return findings

    async def _all(self) -> list[Finding]:
        return [finding async for checked in self.steps() for finding in checked.findings]

    async def steps(self, mailing_id: int = 0, after: Place = BEGINNING) -> AsyncGenerator[Checked, None]:
        """Yield what each place behind `after` has, of one mailing or (0) of all and of what belongs to none.

        Raise NotFound for a mailing that does not exist.
        """
        if mailing_id and await self._database.fetchrow(*_MAILINGS["find_state"].bind(mailing_id=mailing_id)) is None:
            raise NotFound(Kind.MAILING, mailing_id)
        async with aclosing(self.places(mailing_id, after)) as places:
            async for place, share in places:
                yield Checked(place, tuple(await self.check(place)), share)

    async def places(self, mailing_id: int = 0, after: Place = BEGINNING) -> AsyncGenerator[tuple[Place, float], None]:
        """Yield the places behind `after`, each with the share of everything up to there; see `steps`."""
        buckets = [row["bucket"] for row in await self._fetch(*_SQL["list_all_buckets"].bind())]
        for number, bucket in enumerate(buckets):
            last = after.mailing_id if bucket == after.bucket else -1
            if bucket < after.bucket:
                continue
            if last < 0 and not mailing_id:
                yield Place(bucket, 0), number / len(buckets)
            while rows := await self._fetch(
                *_SQL["list_places"].bind(bucket=bucket, mailing_id=mailing_id, after=last, most=_PLACES)
            ):
                for row in rows:
                    yield Place(bucket, row["mailing_id"]), (number + row["share"]) / len(buckets)
                last = rows[-1]["mailing_id"]

    async def check(self, place: Place) -> list[Finding]:
        """Return the contradictions at one place; none at one that is gone by now."""

        async def work(database: Database) -> list[Finding]:
            async with database.snapshot() as connection:
                return await _checked(connection, place)

        async with self._turn:
            return await self._read(work)

    async def _fetch(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        return await self._read(lambda database: database.fetch(query, *arguments))

    async def _read(self, work: Callable[[Database], Awaitable[Result]]) -> Result:
        """Return what `work` finds on the standby, or in the database itself where the standby ends it."""
        reads, scans = self._database.reads, self._database.scans
        if reads is not scans:
            try:
                return await work(reads)
            except DatabaseUnavailable:
                pass  # a long statement hinders the replay, which ends it
        return await work(scans)

    async def _mend(self, place: Place) -> None:
        key = place._asdict()

        async def work(connection: asyncpg.Connection) -> None:
            mailing = await connection.fetchrow(*_SQL["lock_repaired"].bind(mailing_id=place.mailing_id))
            if mailing is None:
                return
            await connection.execute(*_SQL["lock_expansion"].bind(**key))
            await connection.execute(*_SQL["lock_bucket"].bind(bucket=place.bucket))
            await connection.execute(*_SQL["take_in_anew"].bind(**key), timeout=STEP_TIMEOUT)
            await connection.execute(*_SQL["mend_counters"].bind(**key), timeout=STEP_TIMEOUT)
            await connection.execute(*_SQL["mend_open_work"].bind(**key, batch_size=BATCH_SIZE), timeout=STEP_TIMEOUT)
            if mailing["state"] == MailingState.COMPLETED:
                await connection.execute(*_SQL["drop_left_over"].bind(**key), timeout=STEP_TIMEOUT)
                if await connection.fetchval(*_SQL["has_work"].bind(**key)):
                    await reopen(connection, place.mailing_id, mailing)

        await self._database.transact(work)


async def _checked(connection: asyncpg.Connection, place: Place) -> list[Finding]:
    """Return the contradictions at one place in a snapshot."""
    if place.mailing_id and not await connection.fetchval(*_SQL["is_kept"].bind(mailing_id=place.mailing_id)):
        return []
    findings = []
    for name, check in (_OF_MAILING if place.mailing_id else _OF_BUCKET).items():
        given = {**place._asdict(), "most": MOST}
        statement = _SQL[name].bind(**{parameter: given[parameter] for parameter in _SQL[name].names})
        rows = await connection.fetch(*statement, timeout=STEP_TIMEOUT)
        findings += [check.finding(row, place) for row in rows]
    return findings
