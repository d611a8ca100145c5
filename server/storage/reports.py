"""Reports of mailings, read in one snapshot, so that their sums agree with the progress."""

from __future__ import annotations

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
from server.storage.database import Database
from server.storage.mailing_rows import mailing_of
from server.storage.queries import load_queries

_SQL = load_queries("reports.sql")
_MAILINGS = load_queries("mailings.sql")

_ATTEMPTS, _LATENCY = 1, 2
"""The kinds of mailing_figures that are histograms."""


class ReportStore:
    """Reads reports. May raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, mailing_id: int) -> Report:
        """Return the report of a mailing. Raise NotFound."""
        async with self._database.snapshot() as connection:
            found = await connection.fetch(_MAILINGS["get_mailings"], [mailing_id])
            if not found:
                raise NotFound(Kind.MAILING, mailing_id)
            counters = [_counter_of(row) for row in await connection.fetch(_SQL["report_counts"], mailing_id)]
            histograms = await connection.fetch(_SQL["report_histograms"], mailing_id)
            course = await connection.fetch(_SQL["report_course"], mailing_id, COARSE_STEP, LONGEST_COURSE)
        return Report(
            mailing=mailing_of(found[0]),
            statuses=status_counts(counters),
            reasons=reason_counts(counters),
            attempts=tuple(_histogram(histograms, _ATTEMPTS).items()),
            latencies=latency_bins(_histogram(histograms, _LATENCY)),
            course=_course_of(course),
        )


def _counter_of(row: asyncpg.Record) -> Counter:
    return Counter(Status(row["status"]), Reason(row["reason"]), row["n"], row["first_at"], row["last_at"])


def _histogram(rows: list[asyncpg.Record], kind: int) -> dict[int, int]:
    return {row["key"]: row["n"] for row in rows if row["kind"] == kind}


def _course_of(rows: list[asyncpg.Record]) -> Course:
    if not rows:
        return Course()
    return course_of(rows[0]["step"], ((row["minute"], row["delivered"], row["failed"]) for row in rows))
