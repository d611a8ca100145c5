"""Segments over the API: made, found, changed, removed; and how mailings follow them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from dispatcher.model.states import MailingState
from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.client_service_pb2 import ExportClientsRequest, ListClientsRequest
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest
from mailing.v1.schedule_pb2 import Schedule
from mailing.v1.schedule_service_pb2 import (
    CreateScheduleRequest,
    GetScheduleRequest,
    TriggerScheduleRequest,
    UpdateScheduleRequest,
)
from mailing.v1.segment_pb2 import Segment
from mailing.v1.segment_service_pb2 import (
    CreateSegmentRequest,
    DeleteSegmentRequest,
    GetSegmentRequest,
    ListSegmentsRequest,
    PreviewSegmentRequest,
    UpdateSegmentRequest,
)
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.api.calls import add_client, mailing, refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import create, get, move_to, update
from tests.support.ledger import BUCKETS


async def add(service: Service, name: str = "vip", text: str = 'tag = "vip"', **fields: Any) -> Segment:
    segment = Segment(name=name, filter_text=text)
    return (await service.segments.CreateSegment(CreateSegmentRequest(segment=segment, **fields))).segment


async def change(service: Service, segment: Segment, *paths: str) -> Segment:
    request = UpdateSegmentRequest(segment=segment, update_mask=FieldMask(paths=paths))
    return (await service.segments.UpdateSegment(request)).segment


async def people(service: Service) -> dict[str, int]:
    """Add three clients; return their ids by tag."""
    return {tag: (await add_client(service, 79260000000 + n, tag=tag)).id for n, tag in enumerate(("vip", "gold", "x"))}


async def taken_in(pool: asyncpg.Pool, mailing_id: int) -> list[int]:
    """Return who has a message once the dispatcher's plan has done what there is to do."""
    plan = dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan
    await plan.start_due()
    for expansion in await plan.expandable(1000):
        for bucket in expansion.positions:
            await plan.expand(expansion, bucket, 500, 1000)
    await plan.expanded(0.0)
    for expansion in await plan.rechecks_due():
        for bucket in expansion.positions:
            await plan.expand_changes(expansion, bucket, 500, 1000)
    rows = await pool.fetch("SELECT client_id FROM ledger WHERE mailing_id = $1 ORDER BY 1", mailing_id)
    return [row["client_id"] for row in rows]


async def test_a_segment_is_made_and_found_by_id_and_by_name(service: Service) -> None:
    await people(service)
    made = await add(service, "Big.Spenders", 'tag = "vip" OR tag = "gold"')
    assert made.filter == ClientFilter(tags=["gold", "vip"])
    assert (made.size, made.filter_text) == (2, "")
    assert made.HasField("size_time")
    for key in ({"segment_id": made.id}, {"name": "big.spenders"}):
        assert (await service.segments.GetSegment(GetSegmentRequest(**key))).segment == made


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ({}, "segment_id"),
        ({"segment_id": -1}, "segment_id"),
        ({"name": "a\0b"}, "name"),
        ({"segment_id": 1, "name": "a"}, "name"),
    ],
)
async def test_a_segment_is_asked_for_by_one_key(service: Service, key: dict[str, Any], path: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", path):
        await service.segments.GetSegment(GetSegmentRequest(**key))


async def test_the_size_is_counted_again_after_an_hour(service: Service, pool: asyncpg.Pool) -> None:
    made = await add(service)
    await people(service)
    found = (await service.segments.GetSegment(GetSegmentRequest(name="vip"))).segment
    assert found.size == 0
    await pool.execute("UPDATE segments SET size_at = size_at - $1::interval", timedelta(hours=1, seconds=1))
    found = (await service.segments.GetSegment(GetSegmentRequest(name="vip"))).segment
    assert (found.size, found.etag) == (1, made.etag)


async def test_a_repeated_creation_returns_the_first_segment(service: Service) -> None:
    request_id = str(uuid4())
    made = await add(service, request_id=request_id)
    assert await add(service, request_id=request_id) == made
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await add(service, "other", request_id=request_id)
    with refused("ALREADY_EXISTS", "SEGMENT_NAME_TAKEN") as info:
        await add(service, "VIP")
    assert info.metadata == {"segment": "VIP"}


async def test_segments_are_listed_by_name_page_by_page(service: Service) -> None:
    for name in ("b", "C", "a", "d"):
        await add(service, name)
    first = await service.segments.ListSegments(ListSegmentsRequest(page_size=3))
    assert [one.name for one in first.segments] == ["a", "b", "C"]
    rest = await service.segments.ListSegments(ListSegmentsRequest(page_token=first.next_page_token))
    assert [one.name for one in rest.segments] == ["d"]
    assert not rest.next_page_token
    for token in ("x", first.next_page_token[:8], "AAAA" * 6):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"):
            await service.segments.ListSegments(ListSegmentsRequest(page_token=token))


@pytest.mark.parametrize(
    ("segment", "paths"),
    [
        (Segment(), ["segment.name", "segment.filter"]),
        (Segment(name="two words", filter_text="tag = a"), ["segment.name"]),
        (Segment(name="a", filter=ClientFilter(segment="b")), ["segment.filter.segment"]),
        (
            Segment(name="a", filter=ClientFilter(any_of=[ClientFilter(segment="b")])),
            ["segment.filter.any_of[0].segment"],
        ),
        (Segment(name="a", filter_text="tag = a AND sample(3)"), ["segment.filter.sample"]),
        (Segment(name="a", filter_text="tag = a", filter=ClientFilter(tags=["a"])), ["segment.filter_text"]),
        (Segment(name="a", filter=ClientFilter(timezones=["Mars"])), ["segment.filter.timezones[0]"]),
    ],
)
async def test_a_bad_segment_is_refused(service: Service, segment: Segment, paths: list[str]) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", *paths):
        await service.segments.CreateSegment(CreateSegmentRequest(segment=segment))


async def test_a_stale_etag_changes_and_removes_nothing(service: Service) -> None:
    made = await add(service)
    changed = await change(service, Segment(id=made.id, etag=made.etag, name="very-vip"), "name")
    assert (changed.name, changed.filter) == ("very-vip", made.filter)
    with refused("ABORTED", "STALE_ETAG"):
        await change(service, Segment(id=made.id, etag=made.etag, name="x"), "name")
    with refused("ABORTED", "STALE_ETAG"):
        await service.segments.DeleteSegment(DeleteSegmentRequest(segment_id=made.id, etag=made.etag))
    await service.segments.DeleteSegment(DeleteSegmentRequest(segment_id=made.id, etag=changed.etag))
    with refused("NOT_FOUND", "SEGMENT_NOT_FOUND"):
        await service.segments.DeleteSegment(DeleteSegmentRequest(segment_id=made.id))
    await service.segments.DeleteSegment(DeleteSegmentRequest(segment_id=made.id, allow_missing=True))
    for key in ({"segment_id": made.id}, {"name": "very-vip"}):
        with refused("NOT_FOUND", "SEGMENT_NOT_FOUND"):
            await service.segments.GetSegment(GetSegmentRequest(**key))


async def test_a_name_that_is_taken_is_not_given_again(service: Service) -> None:
    await add(service, "a")
    made = await add(service, "b")
    with refused("ALREADY_EXISTS", "SEGMENT_NAME_TAKEN"):
        await change(service, Segment(id=made.id, name="A"), "name")


async def test_lists_exports_and_previews_take_segments(service: Service) -> None:
    by_tag = await people(service)
    await add(service)
    text = f"segment = VIP OR id = {by_tag['x']}"
    found = await service.clients.ListClients(ListClientsRequest(filter_text=text))
    assert [client.id for client in found.clients] == sorted([by_tag["vip"], by_tag["x"]])
    piece: Any = await service.clients.ExportClients(ExportClientsRequest(filter_text=text)).read()
    assert [client.id for client in piece.clients] == [client.id for client in found.clients]
    preview = await service.mailings.PreviewMailing(PreviewMailingRequest(mailing=mailing(filter_text=text)))
    assert preview.audience_size == 2


async def test_an_unknown_segment_is_refused_with_its_path(service: Service, pool: asyncpg.Pool) -> None:
    chosen = ClientFilter(none_of=[ClientFilter(segment="nobody")])
    path = "filter.none_of[0].segment"
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", path):
        await service.clients.ListClients(ListClientsRequest(filter=chosen))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", path):
        await service.clients.ExportClients(ExportClientsRequest(filter=chosen)).read()
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"mailing.{path}"):
        await create(service, filter=chosen)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"mailing.{path}"):
        await service.mailings.PreviewMailing(PreviewMailingRequest(mailing=mailing(filter=chosen)))
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 0


async def test_open_mailings_follow_a_segment_and_snapshots_keep_it(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when a changed segment leaves the audience of mailings, or their expansion, as they are."""
    by_tag = await people(service)
    segment = await add(service)
    opened = await create(service, filter_text="segment = vip")
    fixed = await create(
        service, filter=ClientFilter(segment="vip"), audience_mode=Mailing.AudienceMode.AUDIENCE_MODE_SNAPSHOT
    )
    assert await taken_in(pool, opened.id) == await taken_in(pool, fixed.id) == [by_tag["vip"]]
    await change(service, Segment(id=segment.id, filter_text="tag = gold"), "filter_text")
    assert await taken_in(pool, opened.id) == sorted([by_tag["vip"], by_tag["gold"]])
    assert await taken_in(pool, fixed.id) == [by_tag["vip"]]
    late = await add_client(service, 79269999999, tag="gold")
    assert await taken_in(pool, opened.id) == sorted([by_tag["vip"], by_tag["gold"], late.id])
    assert (await get(service, opened.id)).filter == ClientFilter(segment="vip")
    # Who got no message yet and does not belong to the segment any more is skipped.
    queue = dispatcher_storage(DispatcherDatabase(pool), uuid4()).queue
    definition = (await queue.definitions([opened.id]))[opened.id]
    batches = [await queue.claim(definition, bucket, 10, 60.0, None) for bucket in range(BUCKETS)]
    skipped = {one.client_id for found in batches for batch in found for one in batch.recipients if one.skip_reason}
    assert skipped == {by_tag["vip"]}


async def test_a_snapshot_takes_the_segment_as_it_is_at_its_start(service: Service, pool: asyncpg.Pool) -> None:
    by_tag = await people(service)
    segment = await add(service)
    fixed = await create(
        service, filter=ClientFilter(segment="vip"), audience_mode=Mailing.AudienceMode.AUDIENCE_MODE_SNAPSHOT
    )
    await pool.execute("UPDATE mailings SET state = 1, starts_at = now() + interval '1 h'")
    await pool.execute("DELETE FROM expansions")
    await change(service, Segment(id=segment.id, filter_text="tag = gold"), "filter")
    await pool.execute("UPDATE mailings SET starts_at = now()")
    assert await taken_in(pool, fixed.id) == [by_tag["gold"]]
    preview = await service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=fixed.id))
    assert preview.audience_size == 1


async def test_a_mailing_may_be_given_a_segment_later(service: Service, pool: asyncpg.Pool) -> None:
    by_tag = await people(service)
    await add(service)
    made = await create(service, filter=ClientFilter(tags=["gold"]))
    assert await taken_in(pool, made.id) == [by_tag["gold"]]
    changed = await update(service, Mailing(id=made.id, filter_text="segment = VIP"), "filter_text")
    assert changed.filter == ClientFilter(segment="vip")
    assert await taken_in(pool, made.id) == sorted([by_tag["gold"], by_tag["vip"]])
    changed = await update(service, Mailing(id=made.id, filter=ClientFilter(tags=["x"])), "filter")
    assert await taken_in(pool, made.id) == sorted(by_tag.values())


async def test_a_renamed_segment_stays_in_the_filters_that_name_it(service: Service, pool: asyncpg.Pool) -> None:
    by_tag = await people(service)
    segment = await add(service)
    chosen = ClientFilter(any_of=[ClientFilter(segment="vip"), ClientFilter(tags=["gold"])])
    running, over = await create(service, filter=chosen), await create(service, filter=chosen)
    await move_to(pool, over.id, MailingState.COMPLETED)
    await change(service, Segment(id=segment.id, name="top"), "name")
    for made in (running, over):
        assert (await get(service, made.id)).filter.any_of[0].segment == "top"
        assert (await get(service, made.id)).etag == made.etag or made is over
    await change(service, Segment(id=segment.id, filter_text="tag = x"), "filter")
    assert await taken_in(pool, running.id) == sorted([by_tag["gold"], by_tag["x"]])


async def test_a_segment_in_use_is_not_removed(service: Service, pool: asyncpg.Pool) -> None:
    segment = await add(service)
    chosen = ClientFilter(none_of=[ClientFilter(segment="vip")])
    made = [await create(service, filter=chosen) for _ in range(2)]
    with refused("FAILED_PRECONDITION", "SEGMENT_IN_USE") as info:
        await service.segments.DeleteSegment(DeleteSegmentRequest(segment_id=segment.id))
    assert info.metadata == {"mailings": ",".join(str(one.id) for one in made)}
    for one in made:
        await move_to(pool, one.id, MailingState.COMPLETED)
    await service.segments.DeleteSegment(DeleteSegmentRequest(segment_id=segment.id))
    assert (await get(service, made[0].id)).filter == chosen


async def test_a_preview_returns_a_filter_in_both_forms(service: Service) -> None:
    await people(service)
    segment = await add(service, text="NOT tag = x AND tag != vip")
    stored = await service.segments.PreviewSegment(PreviewSegmentRequest(segment_id=segment.id))
    assert (stored.filter, stored.filter_text, stored.size) == (segment.filter, 'NOT tag = "vip" AND NOT tag = "x"', 1)
    sent = await service.segments.PreviewSegment(PreviewSegmentRequest(filter_text="segment = vip OR tag = vip"))
    assert (sent.filter_text, sent.size) == ('segment = "vip" OR tag = "vip"', 2)
    empty = await service.segments.PreviewSegment(PreviewSegmentRequest(filter=ClientFilter()))
    assert (empty.filter_text, empty.size) == ("", 3)
    with refused("INVALID_ARGUMENT", "INVALID_FILTER", "filter_text") as info:
        await service.segments.PreviewSegment(PreviewSegmentRequest(filter_text="tag = a OR tag = b AND id = 3"))
    assert info.metadata == {"position": "19"}
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "filter"):
        await service.segments.PreviewSegment(PreviewSegmentRequest())


async def test_schedules_name_segments_and_their_mailings_follow(service: Service, pool: asyncpg.Pool) -> None:
    by_tag = await people(service)
    segment = await add(service)
    template = mailing(filter_text="segment = VIP AND NOT got(99)")
    sent = Schedule(mailing=template, timezone="Europe/Berlin", cron="0 0 1 1 *")
    made = (await service.schedules.CreateSchedule(CreateScheduleRequest(schedule=sent))).schedule
    assert made.mailing.filter.segment == "vip"
    with refused("FAILED_PRECONDITION", "SEGMENT_IN_USE") as info:
        await service.segments.DeleteSegment(DeleteSegmentRequest(segment_id=segment.id))
    assert info.metadata == {"schedules": str(made.id)}
    await change(service, Segment(id=segment.id, name="top", filter_text="tag = gold"), "name", "filter_text")
    stored = (await service.schedules.GetSchedule(GetScheduleRequest(schedule_id=made.id))).schedule
    assert stored.mailing.filter.segment == "top"
    triggered = await service.schedules.TriggerSchedule(TriggerScheduleRequest(schedule_id=made.id))
    assert await taken_in(pool, triggered.mailing.id) == [by_tag["gold"]]
    again = Schedule(id=made.id, mailing=mailing("Hi", filter_text="segment = nobody"))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "schedule.mailing.filter.segment"):
        mask = FieldMask(paths=["mailing.filter_text"])
        await service.schedules.UpdateSchedule(UpdateScheduleRequest(schedule=again, update_mask=mask))
