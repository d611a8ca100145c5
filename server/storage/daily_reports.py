"""Daily reports: their statistics, read from counters, and which replica sends each.

Counters have no days, so the undelivered messages of a mailing that goes on over midnight are counted one by one.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg

from dispatcher.model.states import MailingState, Reason, Status
from dispatcher.outcome_events import Event
from server.domain.daily_report import DailyReport, Hour, MailingDay, Occurred, ReportState, ReportTimes
from server.storage.database import Database
from server.storage.events import record
from server.storage.queries import load_queries

_SQL = load_queries("daily_reports.sql")

LEASE = timedelta(minutes=3)
"""How long a replica has a report: longer than sending one may take."""

_EVENTS = ("breaker.opened", "dispatch.paused", "schedule.missed", "schedule.skipped", "report.failed")
"""The events that a report repeats."""


Hours = Counter[tuple[int, Status]]
"""Messages delivered and failed, by hours since the epoch."""


class DailyReportStore:
    """Reads what happened on a day. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, times: ReportTimes) -> None:
        self._database = database
        self._times = times

    async def read(self, day: date) -> DailyReport:
        """Return the report of a day."""
        begins_at, ends_at = self._times.bounds(day)
        hours: Hours = Counter()
        async with self._database.snapshot() as connection:
            rows = await connection.fetch(*_SQL["mailings_of_day"].bind(begins_at=begins_at, ends_at=ends_at))
            mailings = [await self._mailing(connection, row, begins_at, ends_at, hours) for row in rows]
            events = await connection.fetch(
                *_SQL["events_of_day"].bind(bucket=0, begins_at=begins_at, ends_at=ends_at, names=_EVENTS)
            )
        numbers = sorted({number for number, _ in hours})
        return DailyReport(
            day=day,
            zone=self._times.zone.key,
            mailings=[one for one in mailings if one.counts],
            hours=[Hour(_hour(one), hours[one, Status.DELIVERED], hours[one, Status.FAILED]) for one in numbers],
            events=[Occurred(row["event"], row["n"], row["text"]) for row in events],
        )

    async def _mailing(
        self,
        connection: asyncpg.Connection,
        row: asyncpg.Record,
        begins_at: datetime,
        ends_at: datetime,
        hours: Hours,
    ) -> MailingDay:
        """Return the day of one mailing, and add its hours to those of all."""
        bounds = {"mailing_id": row["id"], "begins_at": begins_at, "ends_at": ends_at}
        minutes = {"first_minute": _minutes(begins_at), "last_minute": _minutes(ends_at)}
        delivered = 0
        for hour in await connection.fetch(*_SQL["hours_of"].bind(mailing_id=row["id"], **minutes)):
            delivered += hour["delivered"]
            hours[hour["hour"], Status.DELIVERED] += hour["delivered"]
            hours[hour["hour"], Status.FAILED] += hour["failed"]
        counters = await connection.fetch(*_SQL["counters_of"].bind(**bounds))
        touched = [one for one in counters if one["touched"] and one["status"] != Status.DELIVERED]
        if not all(one["whole"] for one in touched):
            touched = await connection.fetch(*_SQL["ended_of"].bind(**bounds))
        counts = {(Status(one["status"]), Reason(one["reason"])): int(one["n"]) for one in touched}
        if delivered:
            counts[Status.DELIVERED, Reason.NONE] = delivered
        return MailingDay(row["id"], row["title"], row["endpoint"], MailingState(row["state"]), counts)


def _minutes(moment: datetime) -> int:
    return int(moment.timestamp() // 60)


def _hour(number: int) -> datetime:
    return datetime.fromtimestamp(number * 3600, UTC)


class ReportQueue:
    """Which reports are to be sent by this replica. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, replica_id: UUID) -> None:
        self._database = database
        self._holder = replica_id

    async def state_of(self, day: date) -> tuple[datetime, ReportState | None, bool]:
        """Return the present, what became of the report of a day, and whether a day before had one."""
        row = await self._database.fetchrow(*_SQL["look_at_report"].bind(day=day))
        return row["now"], ReportState(row["state"]) if row["state"] else None, row["before"]

    async def take(self, day: date) -> int | None:
        """Take the report of a day; return after how many tries, None while another replica has it or it waits."""
        row = await self._database.fetchrow(*_SQL["take_report"].bind(day=day, holder=self._holder, lease=LEASE))
        return None if row is None else int(row["tries"])

    async def hand_over(self, day: date) -> bool:
        """Note that the mail server gets the report now; return False when another replica has taken it."""
        statement = _SQL["hand_over_report"].bind(day=day, holder=self._holder, lease=LEASE)
        return await self._database.fetchrow(*statement) is not None

    async def retry(self, day: date, error: str, wait: timedelta) -> None:
        """Note that the mail server surely does not have the report; it is tried again after `wait`."""
        await self._database.execute(*_SQL["retry_report"].bind(day=day, holder=self._holder, error=error, wait=wait))

    async def end(self, day: date, state: ReportState, error: str, event: Event) -> None:
        """Note what became of the report, with its event."""
        statement = _SQL["end_report"].bind(day=day, holder=self._holder, state=state, error=error)
        async with self._database.transaction() as connection:
            if await connection.fetchrow(*statement) is not None:
                await record(connection, event)

    async def abandon(self, day: date, found: ReportState, state: ReportState, event: Event) -> bool:
        """End a report that nobody has any more and that is `found` in a state; return whether this replica did."""
        statement = _SQL["abandon_report"].bind(day=day, found=found, state=state, error="")
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(*statement)
            if row is not None:
                why = f" The last error: {row['last_error']}" if row["last_error"] else ""
                await record(connection, event._replace(text=event.text + why))
        return row is not None
