"""Figures from counters: the report of one mailing, and the backlog of all of them for metrics.

Neither reads messages, so both cost the same at any size. A report is read in one snapshot, so
that its sums agree with the progress.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import asyncpg

from dispatcher.model.states import Reason, Status
from server.domain.errors import Kind, NotFound
from server.domain.reports import (
    COARSE_STEP,
    LONGEST_COURSE,
    Counter,
    Course,
    Report,
    course_of,
    latency_bins,
    reason_counts,
    status_counts,
)
from server.storage.client_numbers import share_used
from server.storage.database import Database
from server.storage.mailing_rows import mailing_of
from server.storage.queries import Figure, load_queries
from server.storage.receipts import MAX_CODES, count_of

_SQL = load_queries("reports.sql")
_MAILINGS = load_queries("mailings.sql")
_RECEIPTS = load_queries("receipts.sql")


class ReportStore:
    """Reads reports. May raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, mailing_id: int) -> Report:
        """Return the report of a mailing. Raise NotFound."""
        return await self._database.read(partial(_read, mailing_id))


async def _read(mailing_id: int, database: Database) -> Report:
    async with database.snapshot() as connection:
        found = await connection.fetch(*_MAILINGS["get_mailings"].bind(ids=[mailing_id]))
        if not found:
            raise NotFound(Kind.MAILING, mailing_id)
        counts = await connection.fetch(*_SQL["report_counts"].bind(mailing_id=mailing_id))
        histograms = await connection.fetch(*_SQL["report_histograms"].bind(mailing_id=mailing_id))
        receipts = await connection.fetch(*_RECEIPTS["count_receipts"].bind(mailing_id=mailing_id, most=MAX_CODES))
        course = await connection.fetch(
            *_SQL["report_course"].bind(mailing_id=mailing_id, coarse_step=COARSE_STEP, longest=LONGEST_COURSE)
        )
    counters = [_counter_of(row) for row in counts]
    return Report(
        mailing=mailing_of(found[0]),
        statuses=status_counts(counters),
        reasons=reason_counts(counters),
        attempts=tuple(_histogram(histograms, Figure.ATTEMPTS).items()),
        latencies=latency_bins(_histogram(histograms, Figure.LATENCY)),
        course=_course_of(course),
        receipts=tuple(count_of(row) for row in receipts),
    )


def _counter_of(row: asyncpg.Record) -> Counter:
    return Counter(Status(row["status"]), Reason(row["reason"]), row["n"], row["first_at"], row["last_at"])


def _histogram(rows: list[asyncpg.Record], kind: Figure) -> dict[int, int]:
    return {row["key"]: row["n"] for row in rows if row["kind"] == kind}


def _course_of(rows: list[asyncpg.Record]) -> Course:
    if not rows:
        return Course()
    return course_of(rows[0]["step"], ((row["minute"], row["delivered"], row["failed"]) for row in rows))


class OpenWork(NamedTuple):
    """Open batches of an endpoint: all, those leased, and for how many seconds the oldest other one has been due."""

    batches: int
    leased: int
    lag: float


class Backlog(NamedTuple):
    """`work` and `backlog` (pending messages) by endpoint, `mailings` by state, `recheck_lag` in seconds.

    With `stopped`, operators have stopped all sending. `numbers_used` is the share of client numbers given.
    """

    work: dict[str, OpenWork]
    backlog: dict[str, int]
    mailings: dict[str, int]
    recheck_lag: float
    stopped: bool
    numbers_used: float = 0.0


class BacklogStore:
    """Reads the backlog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> Backlog:
        """Return the backlog as of now. Raise DatabaseUnavailable."""
        async with self._database.connection() as connection:
            work = await connection.fetch(*_SQL["open_work"].bind())
            backlog = await connection.fetch(*_SQL["backlog"].bind())
            numbers_used = await share_used(connection)
            mailings = dict(await connection.fetchrow(*_SQL["live_mailings"].bind()))
        recheck_lag, stopped = mailings.pop("recheck_lag"), mailings.pop("stopped")
        return Backlog(
            work={row["endpoint"]: OpenWork(row["batches"], row["leased"], row["lag"]) for row in work},
            backlog={row["endpoint"]: row["messages"] for row in backlog},
            mailings=mailings,
            recheck_lag=recheck_lag,
            stopped=bool(stopped),
            numbers_used=numbers_used,
        )
