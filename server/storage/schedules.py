"""Schedules in the database, and what comes of them.

One transaction locks a schedule, makes the mailing of an occurrence and moves the schedule on, so that an occurrence
makes one mailing or none, whatever dies; an index on mailings excludes a second one as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import asyncpg

from dispatcher.outcome_events import Event
from server.domain.clients import check_etag
from server.domain.errors import Kind, NotFound, ScheduleOverlaps
from server.domain.pagination import Page, PageRequest, decode_token, encode_token, page_of, query_digest
from server.domain.schedule_events import occurrence_events, schedule_event, schedule_updated
from server.domain.schedules import (
    Overlap,
    Schedule,
    ScheduleDefinition,
    TemplateCodec,
    amended_schedule,
    decide,
    require_next,
    schedule_changes,
)
from server.storage.database import Database, RaceLost
from server.storage.events import record
from server.storage.installation import Installation
from server.storage.mailings import check_calendar, insert_mailing
from server.storage.queries import load_queries
from server.storage.request_ids import CreatingCall, Requests
from server.storage.segment_filters import resolved

_SQL = load_queries("schedules.sql")
_LARGEST_ID = 2**63 - 1
_HOLIDAYS = "schedule.mailing.holidays"


@dataclass(frozen=True, slots=True)
class ScheduleRows:
    """Schedules as rows, with the codec of their templates."""

    codec: TemplateCodec

    def schedule_of(self, row: asyncpg.Record) -> Schedule:
        """Return the schedule of a row."""
        return Schedule(
            id=row["id"],
            definition=ScheduleDefinition(
                mailing=self.codec.mailing_of(row["template"]),
                timezone=row["timezone"],
                title=row["title"],
                cron=row["cron"],
                rrule=row["rrule"],
                end_after=row["end_after"],
                overlap=Overlap(row["overlap"]),
                catch_up=row["catch_up"],
            ),
            paused=row["paused"],
            next_at=row["next_at"],
            waiting_at=row["waiting_at"],
            last_mailing_id=row["last_mailing_id"],
            version=row["version"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )

    def arguments(self, definition: ScheduleDefinition) -> dict[str, object]:
        """Return the parameters of a definition."""
        return {
            "title": definition.title,
            "template": self.codec.text_of(definition.mailing),
            "cron": definition.cron,
            "rrule": definition.rrule,
            "timezone": definition.timezone,
            "end_after": definition.end_after,
            "overlap": definition.overlap,
            "catch_up": definition.catch_up,
        }


class ScheduleStore:
    """Reads and writes schedules. Every method may raise DatabaseUnavailable.

    `hint` is called when something may be due sooner than it was.
    """

    def __init__(
        self, database: Database, installation: Installation, codec: TemplateCodec, hint: Callable[[], None]
    ) -> None:
        self._database = database
        self._zones = installation.zones
        self._requests = Requests(installation)
        self._rows = ScheduleRows(codec)
        self._hint = hint

    async def create(
        self, definition: ScheduleDefinition, call: CreatingCall | None, validate_only: bool = False
    ) -> Schedule:
        """Add a schedule, or return the one that the same call added before.

        With `validate_only` return it as it would be, with id 0. Raise InvalidFields for one that never comes true,
        RequestIdReused, and NotFound if the schedule of a repeated call is gone.
        """

        async def work(connection: asyncpg.Connection) -> asyncpg.Record:
            if call is not None and (made := await self._requests.find(connection, call)) is not None:
                return await self._read(connection, made)
            stored = await _with_segments(connection, definition)
            await check_calendar(connection, definition.mailing.holidays, _HOLIDAYS)
            now = await connection.fetchval(*_SQL["present"].bind())
            schedule_id = 0 if validate_only else await connection.fetchval(*_SQL["next_schedule_id"].bind())
            statement = _SQL["insert_schedule"].bind(
                schedule_id=schedule_id, next_at=require_next(stored, now), **self._rows.arguments(stored)
            )
            row = await connection.fetchrow(*statement)
            if validate_only:
                return row
            if call is not None and not await self._requests.record(connection, call, schedule_id):
                raise RaceLost  # rolls ours back; the next try finds the other one
            await record(connection, schedule_event(schedule_id, definition.title, "created"))
            return row

        if validate_only:
            return self._rows.schedule_of(await self._database.rehearse(work))
        row = await self._database.transact(work)
        self._hint()
        return self._rows.schedule_of(row)

    async def _read(
        self, connection: asyncpg.Connection, schedule_id: int, name: str = "get_schedule"
    ) -> asyncpg.Record:
        row = await connection.fetchrow(*_SQL[name].bind(schedule_id=schedule_id))
        if row is None:
            raise NotFound(Kind.SCHEDULE, schedule_id)
        return row

    async def get(self, schedule_id: int) -> Schedule:
        """Return the schedule. Raise NotFound."""
        async with self._database.connection() as connection:
            return self._rows.schedule_of(await self._read(connection, schedule_id))

    async def list_page(self, page: PageRequest) -> Page[Schedule]:
        """Return a page, newest first. Raise InvalidPageToken."""
        digest = query_digest("schedules")
        (before,) = decode_token(page.token, digest, (_LARGEST_ID,))
        rows = await self._database.fetch(*_SQL["list_schedules"].bind(before=before, limit=page.size + 1))
        return page_of(list(map(self._rows.schedule_of, rows)), page.size, lambda one: encode_token(digest, one.id))

    async def update(
        self,
        schedule_id: int,
        etag: str,
        patch: ScheduleDefinition,
        fields: Collection[str],
        validate_only: bool = False,
    ) -> Schedule:
        """Set `fields` as in `patch`; with `validate_only` return the schedule as it would be, and change nothing.

        With another recurrence, occurrences before this moment make no mailing any more. Raise NotFound, StaleEtag,
        InvalidFields.
        """

        async def work(connection: asyncpg.Connection) -> asyncpg.Record:
            row = await self._read(connection, schedule_id, "lock_schedule")
            schedule = self._rows.schedule_of(row)
            check_etag(etag, schedule.etag)
            before = schedule.definition
            after = amended_schedule(before, patch, fields, self._zones)
            after = await _with_segments(connection, after)
            if after.mailing.holidays != before.mailing.holidays:
                await check_calendar(connection, after.mailing.holidays, _HOLIDAYS)
            next_at = schedule.next_at
            if after.recurrence != before.recurrence:
                found = require_next(after, row["read_at"])
                next_at = None if schedule.paused else found
            waiting_at = schedule.waiting_at if after.overlap is Overlap.WAIT else None
            statement = _SQL["update_schedule"].bind(
                schedule_id=schedule_id, next_at=next_at, waiting_at=waiting_at, **self._rows.arguments(after)
            )
            changed = await connection.fetchrow(*statement)
            if not validate_only:
                await record(connection, *schedule_updated(schedule_id, after.title, schedule_changes(before, after)))
            return changed

        if validate_only:
            return self._rows.schedule_of(await self._database.rehearse(work))
        row = await self._database.transact(work)
        self._hint()
        return self._rows.schedule_of(row)

    async def delete(self, schedule_id: int, etag: str, allow_missing: bool) -> None:
        """Remove the schedule; its mailings stay. Raise StaleEtag, and NotFound unless one may be missing."""

        async def work(connection: asyncpg.Connection) -> None:
            row = await connection.fetchrow(*_SQL["lock_schedule"].bind(schedule_id=schedule_id))
            if row is None:
                if allow_missing:
                    return
                raise NotFound(Kind.SCHEDULE, schedule_id)
            schedule = self._rows.schedule_of(row)
            check_etag(etag, schedule.etag)
            await connection.execute(*_SQL["delete_schedule"].bind(schedule_id=schedule_id))
            await record(connection, schedule_event(schedule_id, schedule.definition.title, "deleted"))

        await self._database.transact(work)

    async def pause(self, schedule_id: int) -> Schedule:
        """Make no mailings until `resume`; no change for a paused one. Raise NotFound."""
        return await self._set_paused(schedule_id, True)

    async def resume(self, schedule_id: int) -> Schedule:
        """Make mailings from the next occurrence on; no change for one that is not paused. Raise NotFound."""
        return await self._set_paused(schedule_id, False)

    async def _set_paused(self, schedule_id: int, paused: bool) -> Schedule:
        async def work(connection: asyncpg.Connection) -> asyncpg.Record:
            row = await self._read(connection, schedule_id, "lock_schedule")
            schedule = self._rows.schedule_of(row)
            if schedule.paused == paused:
                return row
            next_at = None if paused else schedule.definition.next_after(row["read_at"])
            statement = _SQL["set_paused"].bind(schedule_id=schedule_id, paused=paused, next_at=next_at)
            changed = await connection.fetchrow(*statement)
            event = schedule_event(schedule_id, schedule.definition.title, "paused" if paused else "resumed")
            await record(connection, event)
            return changed

        row = await self._database.transact(work)
        self._hint()
        return self._rows.schedule_of(row)

    async def trigger(self, schedule_id: int, call: CreatingCall | None) -> int:
        """Make a mailing of the schedule now and return its id, or that of the one which the same call made before.

        Raise NotFound, ScheduleOverlaps, RequestIdReused.
        """

        async def work(connection: asyncpg.Connection) -> int:
            if call is not None and (made := await self._requests.find(connection, call)) is not None:
                return made
            row = await self._read(connection, schedule_id, "lock_schedule")
            schedule = self._rows.schedule_of(row)
            live = await connection.fetchval(*_SQL["live_mailing_of"].bind(schedule_id=schedule_id))
            if live and schedule.definition.overlap is not Overlap.ALLOW:
                raise ScheduleOverlaps(live)
            mailing_id, events = await _make(connection, schedule, row["read_at"], None)
            await _move_on(connection, schedule_id, schedule.next_at, schedule.waiting_at, mailing_id)
            if call is not None and not await self._requests.record(connection, call, mailing_id):
                raise RaceLost  # rolls ours back; the next try finds the other one
            triggered = schedule_event(schedule_id, schedule.definition.title, "triggered", mailing_id)
            await record(connection, *events, triggered)
            return mailing_id

        mailing_id = await self._database.transact(work)
        self._hint()
        return mailing_id


async def _with_segments(connection: asyncpg.Connection, definition: ScheduleDefinition) -> ScheduleDefinition:
    """Return the definition with the stored names of its segments, which are locked.

    Raise InvalidFields for one that does not exist.
    """
    mailing = definition.mailing
    chosen, _ = await resolved(connection, mailing.filter, "schedule.mailing.filter", keep=True)
    return replace(definition, mailing=replace(mailing, filter=chosen))


async def _make(
    connection: asyncpg.Connection, schedule: Schedule, start: datetime, occurrence: datetime | None
) -> tuple[int, list[Event]]:
    """Make a mailing of a locked schedule, for an occurrence or none; return its id, and events to record."""
    mailing_id, events = await insert_mailing(connection, schedule.definition.mailing_at(start))
    await connection.execute(
        *_SQL["mark_made"].bind(mailing_id=mailing_id, schedule_id=schedule.id, occurrence_at=occurrence)
    )
    return mailing_id, events


async def _move_on(
    connection: asyncpg.Connection,
    schedule_id: int,
    next_at: datetime | None,
    waiting_at: datetime | None,
    mailing_id: int,
) -> None:
    statement = _SQL["move_on"].bind(
        schedule_id=schedule_id, next_at=next_at, waiting_at=waiting_at, mailing_id=mailing_id
    )
    await connection.execute(*statement)


class Due(NamedTuple):
    """The schedules of which something comes now; whether one waits; seconds until the next one is due, if known."""

    ids: list[int]
    waits: bool
    next_in: float | None


class ScheduleQueue:
    """What is due, for those who make mailings. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, codec: TemplateCodec) -> None:
        self._database = database
        self._rows = ScheduleRows(codec)

    async def due(self) -> Due:
        """Return what is due: one statement."""
        return Due(**await self._database.fetchrow(*_SQL["due_schedules"].bind()))

    async def run(self, schedule_id: int) -> int | None:
        """Do what comes of a schedule now; return the id of the mailing made, 0 for none.

        Return None when another replica has it at the moment, or was faster.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(*_SQL["take_due_schedule"].bind(schedule_id=schedule_id))
            if row is None:
                return None
            schedule = self._rows.schedule_of(row)
            # A statement of its own, after the lock: it sees what the last holder of the lock made.
            live = await connection.fetchval(*_SQL["live_mailing_of"].bind(schedule_id=schedule_id))
            decision, mailing_id, events = decide(schedule, row["read_at"], bool(live)), 0, list[Event]()
            if decision.make is not None and not await connection.fetchval(
                *_SQL["was_made"].bind(schedule_id=schedule_id, occurrence_at=decision.make)
            ):
                mailing_id, events = await _make(connection, schedule, decision.make, decision.make)
            await _move_on(connection, schedule_id, decision.next_at, decision.waiting_at, mailing_id)
            await record(connection, *events, *occurrence_events(schedule, decision, live, mailing_id))
        return mailing_id
