"""Mailings in the database, each with its progress.

A write that dispatchers should see at once notifies them in its own transaction and, after
the commit, calls the hint of this process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg
import orjson

from dispatcher.model.states import MailingState
from dispatcher.outcome_events import Event
from server.domain.clients import check_etag
from server.domain.errors import CalendarUnknown, Kind, NotFound, WrongState
from server.domain.events import mailing_created, mailing_event, mailing_updated
from server.domain.filters import ClientFilter, mailings_in
from server.domain.mailings import (
    CANCELLABLE,
    PAUSABLE,
    RESUMABLE,
    TIMETABLE,
    Mailing,
    MailingDefinition,
    MailingQuery,
    amended_mailing,
    changes,
    ended_already,
)
from server.domain.pagination import Page, PageRequest, decode_token, encode_token, query_digest
from server.domain.validation import invalid
from server.storage.database import Database, RaceLost, notify_dispatchers
from server.storage.events import record
from server.storage.installation import Installation
from server.storage.mailing_reads import MailingReads, read_mailings
from server.storage.mailing_rows import definition_arguments, mailing_of
from server.storage.queries import load_queries
from server.storage.request_ids import CreatingCall, Requests
from server.storage.segment_filters import filter_json, resolved

_SQL = load_queries("mailings.sql")
_PLANNER = load_queries("planning.sql")
_MOVES = {"paused": "pause_mailing", "resumed": "resume_mailing", "cancelled": "cancel_mailing"}
_LARGEST_ID = 2**63 - 1

Version = tuple[int, datetime]
"""Differs whenever a mailing's definition or state does."""


async def insert_mailing(connection: asyncpg.Connection, definition: MailingDefinition) -> tuple[int, list[Event]]:
    """Add a mailing; return its id, and the events to record at the end of the transaction.

    It runs at once if its start has come. Raise InvalidFields for an end that has passed, and for an unknown segment.
    """
    await check_calendar(connection, definition.holidays)
    mailing_id = int(await connection.fetchval(*_SQL["next_mailing_id"].bind()))
    definition, audience = await _with_audience(connection, definition)
    statement = _SQL["insert_mailing"].bind(mailing_id=mailing_id, **definition_arguments(definition, audience))
    state = await connection.fetchval(*statement)
    if state is None:
        raise ended_already()
    if state == MailingState.RUNNING:
        await connection.execute(*_SQL["begin_expansion"].bind(mailing_id=mailing_id))
    await notify_dispatchers(connection)
    return mailing_id, mailing_created(mailing_id, definition.title, state == MailingState.RUNNING)


class MailingStore:
    """Reads and writes mailings. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, installation: Installation, hint: Callable[[], None]) -> None:
        self._database = database
        self._zones = installation.zones
        self._requests = Requests(installation)
        self._reads = MailingReads(database.service)
        self._hint = hint

    async def create(self, definition: MailingDefinition, call: CreatingCall | None) -> Mailing:
        """Add a mailing, or return the one that the same call added before.

        It runs at once if its start has come. Raise InvalidFields for an end that has passed,
        RequestIdReused, and NotFound if the mailing of a repeated call is gone.
        """

        async def work(connection: asyncpg.Connection) -> int:
            if call is not None and (made := await self._requests.find(connection, call)) is not None:
                return made
            mailing_id, events = await insert_mailing(connection, definition)
            if call is not None and not await self._requests.record(connection, call, mailing_id):
                raise RaceLost  # rolls ours back; the next try finds the other one
            await record(connection, *events)
            return mailing_id

        mailing_id = await self._database.transact(work)
        self._hint()
        return await self.get(mailing_id)

    async def note(self, event: Event) -> None:
        """Record an event that changes nothing."""
        async with self._database.transaction() as connection:
            await record(connection, event)

    async def get(self, mailing_id: int) -> Mailing:
        """Return the mailing. Raise NotFound."""
        mailing = await self._reads.get(mailing_id)
        if mailing is None:
            raise NotFound(Kind.MAILING, mailing_id)
        return mailing

    async def list_page(self, query: MailingQuery, page: PageRequest) -> Page[Mailing]:
        """Return a page, newest first. Raise InvalidPageToken."""
        digest = query_digest("mailings", list(query.states), dict(query.labels), *query.later_parts())
        (before,) = decode_token(page.token, digest, (_LARGEST_ID,))
        labels = orjson.dumps(dict(query.labels)).decode() if query.labels else None
        statement = _SQL["list_mailing_ids"].bind(
            before=before,
            limit=page.size + 1,
            states=list(query.states) or None,
            labels=labels,
            text=query.text,
            schedule_id=query.schedule_id,
        )
        async with self._database.connection() as connection:
            ids = [row["id"] for row in await connection.fetch(*statement)]
            rows = await connection.fetch(*_SQL["get_mailings"].bind(ids=ids[: page.size]))
        next_token = encode_token(digest, ids[page.size - 1]) if len(ids) > page.size else ""
        return Page(tuple(map(mailing_of, rows)), lambda one: encode_token(digest, one.id), next_token)

    async def update(
        self,
        mailing_id: int,
        etag: str,
        patch: MailingDefinition,
        fields: Collection[str],
        validate_only: bool = False,
    ) -> Mailing:
        """Set `fields` as in `patch`; with `validate_only` return the mailing as it would be, and change nothing.

        Raise NotFound, StaleEtag, WrongState, InvalidFields. A running mailing whose start is moved into the
        future is SCHEDULED again. When the filter of an open mailing changes, a new pass over all clients
        takes in those that match.
        """

        async def work(connection: asyncpg.Connection) -> Mailing | None:
            row = await self._lock(connection, mailing_id)
            mailing = mailing_of(row)
            check_etag(etag, mailing.etag)
            begun = await connection.fetchval(*_SQL["has_begun"].bind(mailing_id=mailing_id))
            after = amended_mailing(mailing, patch, fields, row["read_at"], begun, self._zones)
            if "holidays" in fields:
                await check_calendar(connection, after.holidays)
            audience = row["audience"]
            if after.filter != mailing.definition.filter:
                _check_own(after.filter, mailing_id)
                after, audience = await _with_audience(connection, after)
            arguments = definition_arguments(after, audience)
            await connection.execute(*_SQL["update_mailing"].bind(mailing_id=mailing_id, **arguments))
            if validate_only:
                return mailing_of(await connection.fetchrow(*_SQL["get_mailings"].bind(ids=[mailing_id])))
            changed = changes(mailing.definition, after)
            if "filter" in changed:
                await connection.execute(*_PLANNER["expand_anew"].bind(ids=[mailing_id]))
            if not TIMETABLE.isdisjoint(changed):
                await connection.execute(*_SQL["wait_for_expansion"].bind(mailing_id=mailing_id))
                await connection.execute(*_SQL["note_judged"].bind(mailing_id=mailing_id))
                await connection.execute(*_SQL["judge_anew"].bind(mailing_id=mailing_id))
            await notify_dispatchers(connection)
            await record(connection, *mailing_updated(mailing_id, changed))
            return None

        if validate_only and (rehearsed := await self._database.rehearse(work)):
            return rehearsed
        await self._database.transact(work)
        self._hint()
        return await self.get(mailing_id)

    async def _lock(self, connection: asyncpg.Connection, mailing_id: int) -> asyncpg.Record:
        row = await connection.fetchrow(*_SQL["lock_mailing"].bind(mailing_id=mailing_id))
        if row is None:
            raise NotFound(Kind.MAILING, mailing_id)
        return row

    async def pause(self, mailing_id: int, etag: str = "") -> Mailing:
        """Stop the mailing, or hold one that is scheduled; no change for a paused one.

        Raise NotFound, WrongState, StaleEtag.
        """
        return await self._move(mailing_id, "paused", {MailingState.PAUSED}, PAUSABLE, etag)

    async def resume(self, mailing_id: int) -> Mailing:
        """Continue a paused mailing, or schedule it again if it has not begun or its start is ahead.

        No change for a running or scheduled one. Raise NotFound, WrongState.
        """
        return await self._move(mailing_id, "resumed", {MailingState.RUNNING, MailingState.SCHEDULED}, RESUMABLE)

    async def cancel(self, mailing_id: int, etag: str = "") -> Mailing:
        """End the mailing; no change for a cancelled one. Raise NotFound, WrongState, StaleEtag.

        The dispatcher ends its unsent messages.
        """
        return await self._move(mailing_id, "cancelled", {MailingState.CANCELLED}, CANCELLABLE, etag)

    async def _move(
        self,
        mailing_id: int,
        what: str,
        there: Collection[MailingState],
        sources: Collection[MailingState],
        etag: str = "",
    ) -> Mailing:
        """Move a mailing as its statement says, unless it is in one of the states `there` already.

        The etag is not checked then: a call that is repeated does not fail because the first one was done.
        """

        async def work(connection: asyncpg.Connection) -> None:
            # Locked first: the state that an error names is the one that was in the way.
            mailing = mailing_of(await self._lock(connection, mailing_id))
            found = mailing.state
            if found not in there:
                check_etag(etag, mailing.etag)
                if found not in sources:
                    raise WrongState(what, found, sources)
                await connection.execute(*_SQL[_MOVES[what]].bind(mailing_id=mailing_id, sources=sorted(sources)))
                await record(connection, mailing_event(mailing_id, what))
            await notify_dispatchers(connection)

        await self._database.transact(work)
        self._hint()
        return await self.get(mailing_id)


async def _with_audience(
    connection: asyncpg.Connection, definition: MailingDefinition
) -> tuple[MailingDefinition, str | None]:
    """Return the definition with the stored names of its segments, and the filter that these are put into.

    The segments stay as they are until the end of the transaction. Raise InvalidFields for one that does not exist.
    """
    chosen, whole = await resolved(connection, definition.filter, "mailing.filter", keep=True)
    audience = filter_json(whole) if whole != chosen else None
    return replace(definition, filter=chosen), audience


def _check_own(chosen: ClientFilter, mailing_id: int) -> None:
    """Raise InvalidFields for a filter that asks for messages of its own mailing: these change as it is sent."""
    if mailing_id in mailings_in(chosen):
        raise invalid("mailing.filter", f"asks who got mailing {mailing_id}, which is this one: name others")


async def check_calendar(connection: asyncpg.Connection, name: str, path: str = "mailing.holidays") -> None:
    """Raise CalendarUnknown for the name, in the field at `path`, of a calendar that there is not; '' is none."""
    if not name:
        return
    known = [row["name"] for row in await connection.fetch(*_SQL["calendar_names"].bind())]
    if name not in known:
        raise CalendarUnknown(name, known, path)


class ProgressStore:
    """Reads mailings with their progress, many at once, for watchers. Every method may raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, ids: Sequence[int]) -> dict[int, Mailing]:
        """Return the mailings that exist."""
        async with self._database.connection() as connection:
            return await read_mailings(connection, ids)

    async def versions(self, ids: Sequence[int]) -> dict[int, Version]:
        """Return the versions of the mailings that exist: much cheaper than `read`."""
        rows = await self._database.fetch(*_SQL["mailing_versions"].bind(ids=ids))
        return {row["id"]: (row["version"], row["updated_at"]) for row in rows}
