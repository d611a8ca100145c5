"""Segments in the database, and the mailings that follow them.

A mailing that names a segment has its filter put into `mailings.audience`, so that dispatchers know no segments.
A changed segment rewrites that of every mailing that is not over, except of one that began with a fixed audience.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from dispatcher.model.states import AudienceMode
from server.domain.clients import check_etag
from server.domain.errors import InvalidPageToken, Kind, NotFound, SegmentInUse, SegmentNameTaken, SegmentUnknown
from server.domain.events import segment_event
from server.domain.filters import ClientFilter, filter_from_json
from server.domain.pagination import Page, PageRequest, bytes_of_token, page_of, query_digest, token_of_bytes
from server.domain.segments import Segment, SegmentDefinition, SegmentKey, amended_segment
from server.storage.clients import count_matching
from server.storage.database import Database, RaceLost, notify_dispatchers
from server.storage.events import record
from server.storage.installation import Installation
from server.storage.queries import load_queries
from server.storage.request_ids import CreatingCall, Requests
from server.storage.segment_filters import filter_json, resolved

_SQL = load_queries("segments.sql")
_PLANNER = load_queries("planning.sql")

COUNTED_FOR = timedelta(hours=1)
"""How old the size of a segment may be before it is counted again."""


class SegmentStore:
    """Reads and writes segments. Every method may raise DatabaseUnavailable, those that count also ScanTooLong."""

    def __init__(self, database: Database, installation: Installation, hint: Callable[[], None]) -> None:
        self._database = database
        self._zones = installation.zones
        self._requests = Requests(installation)
        self._hint = hint

    async def create(self, definition: SegmentDefinition, call: CreatingCall | None) -> Segment:
        """Add a segment, or return the one that the same call added before.

        Raise SegmentNameTaken, RequestIdReused, and NotFound if the segment of a repeated call is gone.
        """

        async def work(connection: asyncpg.Connection) -> int:
            if call is not None and (made := await self._requests.find(connection, call)) is not None:
                return made
            statement = _SQL["insert_segment"].bind(segment_name=definition.name, filter=filter_json(definition.filter))
            row = await connection.fetchrow(*statement)
            if row is None:
                raise SegmentNameTaken(definition.name)
            segment_id = int(row["id"])
            if call is not None and not await self._requests.record(connection, call, segment_id):
                raise RaceLost  # the same call is under way twice
            await record(connection, segment_event("created", segment_id, definition.name))
            return segment_id

        return await self.get(await self._database.transact(work))

    async def get(self, key: SegmentKey) -> Segment:
        """Return the segment; its clients are counted if that is long ago. Raise NotFound, SegmentUnknown."""
        if isinstance(key, int):
            row = await self._database.fetchrow(*_SQL["get_segment"].bind(segment_id=key))
        else:
            row = await self._database.fetchrow(*_SQL["find_segment"].bind(segment_name=key))
        if row is None:
            raise NotFound(Kind.SEGMENT, key) if isinstance(key, int) else SegmentUnknown(key)
        return await self._counted(segment_of(row))

    async def filter_of(self, segment_id: int) -> ClientFilter:
        """Return the filter of a segment. Raise NotFound."""
        row = await self._database.fetchrow(*_SQL["get_segment"].bind(segment_id=segment_id))
        if row is None:
            raise NotFound(Kind.SEGMENT, segment_id)
        return segment_of(row).definition.filter

    async def _counted(self, segment: Segment) -> Segment:
        if segment.size_at is not None and datetime.now(UTC) - segment.size_at < COUNTED_FOR:
            return segment
        size = await self.count(segment.definition.filter)
        statement = _SQL["record_size"].bind(segment_id=segment.id, version=segment.version, size=size)
        row = await self._database.fetchrow(*statement)
        return segment if row is None else segment_of(row)

    async def count(self, chosen: ClientFilter) -> int:
        """Return how many clients match a filter now. Read all clients. Raise InvalidFields for an unknown segment."""
        async with self._database.reads.connection() as connection:
            _, whole = await resolved(connection, chosen)
            return await count_matching(connection, whole)

    async def list_page(self, page: PageRequest) -> Page[Segment]:
        """Return a page in the order of names, with sizes as last counted. Raise InvalidPageToken."""
        name, segment_id = _key_of(page.token)
        statement = _SQL["list_segments"].bind(after_name=name, after_id=segment_id, limit=page.size + 1)
        rows = await self._database.fetch(*statement)
        return page_of([*map(segment_of, rows)], page.size, _token_behind)

    async def update(self, segment_id: int, etag: str, patch: SegmentDefinition, fields: Collection[str]) -> Segment:
        """Set `fields` as in `patch`; mailings that name the segment follow.

        Raise NotFound, StaleEtag, SegmentNameTaken, InvalidFields.
        """

        async def work(connection: asyncpg.Connection) -> None:
            segment = await _lock(connection, segment_id, etag)
            before = segment.definition
            after = amended_segment(before, patch, fields, self._zones)
            arguments = {"segment_name": after.name, "filter": filter_json(after.filter)}
            try:
                await connection.execute(*_SQL["update_segment"].bind(segment_id=segment_id, **arguments))
            except asyncpg.UniqueViolationError:
                raise SegmentNameTaken(after.name) from None
            if after.name != before.name:
                await _rename(connection, before.name, after.name)
            if after.filter != before.filter:
                await _follow(connection, after.name)
                await notify_dispatchers(connection)
            await record(connection, segment_event("updated", segment_id, after.name))

        await self._database.transact(work)
        self._hint()
        return await self.get(segment_id)

    async def delete(self, segment_id: int, etag: str, allow_missing: bool) -> None:
        """Remove the segment. Raise StaleEtag, SegmentInUse, and NotFound unless `allow_missing`."""

        async def work(connection: asyncpg.Connection) -> None:
            segment = await _lock(connection, segment_id, etag)
            name = segment.definition.name
            rows = await connection.fetch(*_SQL["mailings_naming"].bind(segment_name=name, live=True))
            schedules = await connection.fetch(*_SQL["schedules_naming"].bind(segment_name=name))
            if rows or schedules:
                raise SegmentInUse(name, [row["id"] for row in rows], [row["id"] for row in schedules])
            await connection.execute(*_SQL["delete_segment"].bind(segment_id=segment_id))
            await record(connection, segment_event("deleted", segment_id, name))

        try:
            await self._database.transact(work)
        except NotFound:
            if not allow_missing:
                raise


async def _lock(connection: asyncpg.Connection, segment_id: int, etag: str) -> Segment:
    row = await connection.fetchrow(*_SQL["lock_segment"].bind(segment_id=segment_id))
    if row is None:
        raise NotFound(Kind.SEGMENT, segment_id)
    segment = segment_of(row)
    check_etag(etag, segment.etag)
    return segment


async def _rename(connection: asyncpg.Connection, before: str, after: str) -> None:
    """Write the new name into the filters of all mailings and schedules that name the segment, and nothing else."""
    for row in await connection.fetch(*_SQL["mailings_naming"].bind(segment_name=before, live=False)):
        statement = _SQL["name_segment_anew"].bind(mailing_id=row["id"], filter=_renamed(row["filter"], before, after))
        await connection.execute(*statement)
    for row in await connection.fetch(*_SQL["schedules_naming"].bind(segment_name=before)):
        template = _renamed(row["template"], before, after)
        await connection.execute(*_SQL["name_segment_in_template"].bind(schedule_id=row["id"], template=template))


def _renamed(stored: str, before: str, after: str) -> str:
    """Return stored JSON with another name in each field `segment`, at any depth."""

    def anew(part: Any) -> Any:
        match part:
            case dict():
                return {
                    key: after if key == "segment" and value == before else anew(value) for key, value in part.items()
                }
            case list():
                return [anew(one) for one in part]
            case _:
                return part

    return orjson.dumps(anew(orjson.loads(stored))).decode()


async def _follow(connection: asyncpg.Connection, name: str) -> None:
    """Give the present filter of a segment to the mailings that name it; open ones read all clients once more."""
    rows = await connection.fetch(*_SQL["mailings_naming"].bind(segment_name=name, live=True))
    following = [row for row in rows if not (row["begun"] and row["audience_mode"] == AudienceMode.SNAPSHOT)]
    for row in following:
        _, whole = await resolved(connection, filter_from_json(orjson.loads(row["filter"])))
        await connection.execute(*_SQL["follow_segment"].bind(mailing_id=row["id"], audience=filter_json(whole)))
    if following:
        await connection.execute(*_PLANNER["expand_anew"].bind(ids=[row["id"] for row in following]))


def segment_of(row: asyncpg.Record) -> Segment:
    """Return the segment of a row."""
    definition = SegmentDefinition(row["name"], filter_from_json(orjson.loads(row["filter"])))
    return Segment(
        row["id"], definition, row["size"], row["size_at"], row["version"], row["created_at"], row["updated_at"]
    )


_DIGEST = query_digest("segments")


def _token_behind(segment: Segment) -> str:
    return token_of_bytes(_DIGEST + segment.id.to_bytes(8, "big") + segment.definition.name.lower().encode())


def _key_of(token: str) -> tuple[str, int]:
    """Return the name and the id behind which a page begins. Raise InvalidPageToken."""
    if not token:
        return "", 0
    try:
        raw = bytes_of_token(token)
        name = raw[len(_DIGEST) + 8 :].decode()
    except ValueError:
        raise InvalidPageToken from None
    if raw[: len(_DIGEST)] != _DIGEST or len(raw) < len(_DIGEST) + 8 or "\0" in name:
        raise InvalidPageToken
    return name, int.from_bytes(raw[len(_DIGEST) : len(_DIGEST) + 8], "big", signed=True)
