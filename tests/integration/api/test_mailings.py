"""MailingService on a real server and database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dispatcher.model.states import MailingState, Status
from mailing.v1 import client_pb2, mailing_pb2
from mailing.v1.mailing_service_pb2 import (
    CancelMailingRequest,
    CreateMailingRequest,
    DeleteMailingRequest,
    GetMailingRequest,
    ListMailingsRequest,
    PauseMailingRequest,
    ResumeMailingRequest,
    UpdateMailingRequest,
)
from tests.integration.api.calls import add_client, mailing, refused
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import State, at, create, get, move_to, update
from tests.integration.api.rows import add_count


async def test_a_mailing_comes_back_as_it_was_created(service: Service) -> None:
    asked = mailing(
        "Dear {attributes.name|friend}",
        title="Spring",
        filter=client_pb2.ClientFilter(
            tags=["gold"], operator_codes=["926"], timezones=["UTC"], attributes={"a": "1"}, client_ids=[17, 18]
        ),
        start_time=at(3600),
        end_time=at(7200),
        audience_mode=mailing_pb2.Mailing.AUDIENCE_MODE_SNAPSHOT,
        semantics=mailing_pb2.Mailing.SEMANTICS_AT_MOST_ONCE,
        priority=-7,
        max_rate=2.5,
        endpoint="default",
        retry=mailing_pb2.RetryPolicy(
            max_attempts=3, initial_backoff=Duration(nanos=20_000_000), max_backoff=Duration(seconds=9)
        ),
        labels={"team": "crm"},
    )
    made = (await service.mailings.CreateMailing(CreateMailingRequest(mailing=asked))).mailing
    assert made.id > 0
    assert made.etag
    assert made.state == State.STATE_SCHEDULED
    for descriptor, value in asked.ListFields():
        assert getattr(made, descriptor.name) == value, descriptor.name
    assert await get(service, made.id) == made


async def test_what_was_left_out_gets_the_defaults(service: Service) -> None:
    made = await create(service)
    assert made.state == State.STATE_RUNNING
    assert made.audience_mode == mailing_pb2.Mailing.AUDIENCE_MODE_OPEN
    assert made.semantics == mailing_pb2.Mailing.SEMANTICS_AT_LEAST_ONCE
    assert made.start_time == made.create_time
    assert not made.HasField("end_time")
    retry = mailing_pb2.RetryPolicy(
        max_attempts=5, initial_backoff=Duration(seconds=1), max_backoff=Duration(seconds=300)
    )
    assert made.retry == retry
    assert made.progress == mailing_pb2.MailingProgress()
    long = await create(service, retry=mailing_pb2.RetryPolicy(initial_backoff=Duration(seconds=3600)))
    assert long.retry.max_backoff == Duration(seconds=3600)


async def test_only_a_mailing_whose_start_has_come_gets_expansions(service: Service, pool: asyncpg.Pool) -> None:
    await add_client(service)
    running = await create(service, start_time=at(-3600))
    scheduled = await create(service, start_time=at(3600))
    rows = await pool.fetch("SELECT e.*, s.seq FROM expansions e JOIN client_change_seqs s USING (bucket)")
    assert {row["mailing_id"] for row in rows} == {running.id}
    assert len(rows) == 16
    assert all(row["change_seq"] == row["seq"] for row in rows)
    assert max(row["seq"] for row in rows) == 1
    assert scheduled.state == State.STATE_SCHEDULED


async def test_a_replay_returns_the_first_mailing_as_it_is_now(service: Service) -> None:
    request = CreateMailingRequest(mailing=mailing(end_time=at(3600)), request_id=str(uuid4()))
    made = (await service.mailings.CreateMailing(request)).mailing
    changed = await update(service, mailing_pb2.Mailing(id=made.id, title="new"))
    assert (await service.mailings.CreateMailing(request)).mailing == changed
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await service.mailings.CreateMailing(
            CreateMailingRequest(mailing=mailing("Other"), request_id=request.request_id)
        )


async def test_simultaneous_identical_creates_make_one_mailing(service: Service, pool: asyncpg.Pool) -> None:
    request = CreateMailingRequest(mailing=mailing(labels={"a": "1", "b": "2"}), request_id=str(uuid4()))
    answers = await asyncio.gather(*(service.mailings.CreateMailing(request) for _ in range(8)))
    assert len({answer.mailing.id for answer in answers}) == 1
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 1
    assert await pool.fetchval("SELECT count(*) FROM expansions") == 16


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"text": ""}, "mailing.text"),
        ({"text": "Hi {name}"}, "mailing.text"),
        ({"text": "x\0"}, "mailing.text"),
        ({"end_time": Timestamp(seconds=1)}, "mailing.end_time"),
        ({"start_time": Timestamp(seconds=2**40), "end_time": Timestamp(seconds=2**40)}, "mailing.start_time"),
        ({"start_time": Timestamp(seconds=9**10), "end_time": Timestamp(seconds=9**10)}, "mailing.end_time"),
        ({"start_time": Timestamp(nanos=-1)}, "mailing.start_time"),
        ({"audience_mode": 9}, "mailing.audience_mode"),
        ({"semantics": 9}, "mailing.semantics"),
        ({"max_rate": float("nan")}, "mailing.max_rate"),
        ({"priority": 1001}, "mailing.priority"),
        ({"filter": client_pb2.ClientFilter(timezones=["Nowhere"])}, "mailing.filter.timezones[0]"),
        ({"retry": mailing_pb2.RetryPolicy(max_attempts=101)}, "mailing.retry.max_attempts"),
        ({"retry": mailing_pb2.RetryPolicy(initial_backoff=Duration())}, "mailing.retry.initial_backoff"),
        ({"labels": {"": "x"}}, "mailing.labels"),
    ],
)
async def test_a_bad_mailing_is_rejected_by_field(
    service: Service, pool: asyncpg.Pool, fields: dict[str, Any], path: str
) -> None:
    more = ["mailing.end_time"] if path == "mailing.start_time" and "end_time" in fields else []
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", path, *more):
        await create(service, **fields)
    assert await pool.fetchval("SELECT count(*) FROM mailings") == 0


async def test_a_mailing_that_was_left_out_lacks_its_text(service: Service) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.text"):
        await service.mailings.CreateMailing(CreateMailingRequest())


async def test_an_unknown_placeholder_is_named_with_its_position(service: Service) -> None:
    with pytest.raises(Exception, match=r"\{name\}.* at character 4"):
        await create(service, "Hi {name}")


@pytest.mark.parametrize("moment", [Timestamp(seconds=-62104060800), Timestamp(seconds=253370764799, nanos=999999999)])
async def test_the_whole_calendar_may_be_a_start(service: Service, moment: Timestamp) -> None:
    made = await create(service, start_time=moment)
    assert made.start_time.seconds == moment.seconds


async def test_an_endpoint_that_is_not_configured_is_not_found(service: Service) -> None:
    with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND") as info:
        await create(service, endpoint="elsewhere")
    assert info.metadata == {"endpoint": "elsewhere", "known": "default"}


async def test_a_scheduled_mailing_may_be_changed_in_every_field(service: Service) -> None:
    made = await create(service, start_time=at(3600))
    changed = mailing(
        "New", title="t", filter=client_pb2.ClientFilter(tags=["x"]), start_time=at(7200), end_time=at(9000), priority=3
    )
    changed.id, changed.etag = made.id, made.etag
    after = await update(service, changed, "*")
    for name in ("text", "title", "filter", "start_time", "end_time", "priority"):
        assert getattr(after, name) == getattr(changed, name)
    assert after.etag != made.etag
    assert after == await get(service, made.id)


async def test_without_a_mask_only_populated_fields_change(service: Service) -> None:
    made = await create(service, title="old", start_time=at(3600), priority=5)
    after = await update(service, mailing_pb2.Mailing(id=made.id, text="New"))
    assert (after.text, after.title, after.priority) == ("New", "old", 5)


@pytest.mark.parametrize("state", [MailingState.RUNNING, MailingState.PAUSED])
async def test_a_live_mailing_keeps_its_audience_and_its_promises(
    service: Service, pool: asyncpg.Pool, state: MailingState
) -> None:
    made = await create(service)
    await move_to(pool, made.id, state)
    end = at(3600)
    fields = mailing_pb2.Mailing(
        id=made.id, text="New", title="t", end_time=end, priority=1, max_rate=5, labels={"a": "b"}
    )
    after = await update(service, fields)
    assert (after.text, after.title, after.end_time, after.priority, after.max_rate) == ("New", "t", end, 1, 5)
    for other in (
        mailing_pb2.Mailing(id=made.id, audience_mode=mailing_pb2.Mailing.AUDIENCE_MODE_SNAPSHOT),
        mailing_pb2.Mailing(id=made.id, semantics=mailing_pb2.Mailing.SEMANTICS_AT_MOST_ONCE),
        mailing_pb2.Mailing(id=made.id, endpoint="default"),
    ):
        with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
            await update(service, other)
        assert info.metadata == {"found": state.name, "needed": "SCHEDULED"}
    assert await get(service, made.id) == after


@pytest.mark.parametrize("state", [MailingState.COMPLETED, MailingState.CANCELLED])
async def test_a_mailing_that_is_over_may_be_renamed_and_relabelled_only(
    service: Service, pool: asyncpg.Pool, state: MailingState
) -> None:
    made = await create(service)
    await move_to(pool, made.id, state)
    after = await update(service, mailing_pb2.Mailing(id=made.id, title="archived", labels={"year": "2026"}))
    assert (after.title, dict(after.labels)) == ("archived", {"year": "2026"})
    with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
        await update(service, mailing_pb2.Mailing(id=made.id, text="New"))
    assert info.metadata == {"found": state.name, "needed": "SCHEDULED,RUNNING,PAUSED"}


async def test_a_mask_names_parts_of_fields(service: Service) -> None:
    """Fails when a part replaces the whole field."""
    chosen = client_pb2.ClientFilter(tags=["news"], attributes={"city": "Omsk"})
    retry = mailing_pb2.RetryPolicy(
        max_attempts=3, initial_backoff=Duration(seconds=600), max_backoff=Duration(seconds=900)
    )
    made = await create(service, filter=chosen, retry=retry, labels={"a": "1", "b.c": "2"}, start_time=at(3600))
    patch = mailing_pb2.Mailing(id=made.id, labels={"b.c": "3"})
    patch.filter.attributes["city"] = "Tomsk"
    patch.retry.max_attempts = 7
    paths = ("filter.attributes.city", "retry.max_attempts", "labels.b.c", "labels.a")
    changed = await update(service, patch, *paths)
    assert changed.filter == client_pb2.ClientFilter(tags=["news"], attributes={"city": "Tomsk"})
    assert (changed.retry.max_attempts, changed.retry.initial_backoff.seconds) == (7, 600)
    assert dict(changed.labels) == {"b.c": "3"}
    patch.retry.initial_backoff.seconds = 1000
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.retry.max_backoff"):
        await update(service, patch, "retry.initial_backoff")


async def test_an_update_may_only_be_tried(service: Service) -> None:
    made = await create(service, start_time=at(3600))
    request = UpdateMailingRequest(mailing=mailing_pb2.Mailing(id=made.id, title="new", text="Hi"), validate_only=True)
    tried = (await service.mailings.UpdateMailing(request)).mailing
    assert (tried.title, tried.text) == ("new", "Hi")
    assert await get(service, made.id) == made
    request.mailing.text = " "
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.text"):
        await service.mailings.UpdateMailing(request)


async def test_a_stale_etag_pauses_and_cancels_nothing(service: Service) -> None:
    """Fails when a repeated call is refused because the first one was done."""
    made = await create(service, start_time=at(3600))
    current = await update(service, mailing_pb2.Mailing(id=made.id, title="new"))
    for call, request in (
        (service.mailings.PauseMailing, PauseMailingRequest),
        (service.mailings.CancelMailing, CancelMailingRequest),
    ):
        with refused("ABORTED", "STALE_ETAG"):
            await call(request(mailing_id=made.id, etag=made.etag))  # type: ignore[arg-type]
        for _ in range(2):
            changed: Any = await call(request(mailing_id=made.id, etag=current.etag))  # type: ignore[arg-type]
        current = changed.mailing
    assert current.state == mailing_pb2.Mailing.STATE_CANCELLED


async def test_an_update_is_rejected_by_field(service: Service) -> None:
    made = await create(service, start_time=at(3600))
    for path in ("filter.height", "nothing", "start_time.seconds"):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"):
            await update(service, mailing_pb2.Mailing(id=made.id), path)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.text"):
        await update(service, mailing_pb2.Mailing(id=made.id), "text")
    for end in (at(-5), at(60)):  # has passed; before the start
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing.end_time"):
            await update(service, mailing_pb2.Mailing(id=made.id, end_time=end))
    with refused("ABORTED", "STALE_ETAG"):
        await update(service, mailing_pb2.Mailing(id=made.id, title="x", etag="0-0"))


async def test_output_only_fields_of_a_write_are_ignored(service: Service) -> None:
    """So what was read can be written back."""
    made = await create(service, id=5, state=State.STATE_PAUSED, etag="x", schedule_id=7, start_time=at(3600))
    assert (made.id, made.state, made.schedule_id) == (1, State.STATE_SCHEDULED, 0)
    sent = mailing_pb2.Mailing(id=made.id, title="new", state=State.STATE_PAUSED, create_time=at(0), begin_time=at(0))
    changed = await update(service, sent, "title", "id", "state", "progress.total", "etag", "begin_time")
    assert (changed.title, changed.state, changed.create_time) == ("new", State.STATE_SCHEDULED, made.create_time)
    assert (await update(service, changed)).title == "new"


async def test_callers_get_their_own_mailings_as_they_are_now(service: Service) -> None:
    """Fails when a response that was made for another read is given."""
    first, second = await create(service, "one", start_time=at(2040)), await create(service, "two")

    async def texts() -> list[str]:
        ids = [first.id, second.id, first.id, second.id, first.id]
        got = await asyncio.gather(*(service.mailings.GetMailing(GetMailingRequest(mailing_id=one)) for one in ids))
        return [one.mailing.text for one in got]

    assert await texts() == ["one", "two", "one", "two", "one"]
    await update(service, mailing_pb2.Mailing(id=first.id, text="three", start_time=first.start_time), "text")
    assert await texts() == ["three", "two", "three", "two", "three"]


async def test_an_unknown_mailing_is_not_found(service: Service) -> None:
    calls = (
        service.mailings.GetMailing(GetMailingRequest(mailing_id=99)),
        service.mailings.UpdateMailing(UpdateMailingRequest(mailing=mailing_pb2.Mailing(id=99, title="x"))),
        service.mailings.DeleteMailing(DeleteMailingRequest(mailing_id=99)),
        service.mailings.PauseMailing(PauseMailingRequest(mailing_id=99)),
        service.mailings.ResumeMailing(ResumeMailingRequest(mailing_id=99)),
        service.mailings.CancelMailing(CancelMailingRequest(mailing_id=99)),
    )
    for call in calls:
        with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
            await call


async def test_progress_sums_the_counters_of_all_buckets(service: Service, pool: asyncpg.Pool) -> None:
    made = await create(service)
    for status in Status:
        for bucket in (0, 7):
            await add_count(pool, made.id, bucket, status, int(status))
    await pool.execute("UPDATE mailing_counts SET attempts = 3 WHERE status IN (1, 2)")
    await pool.execute("UPDATE mailing_counts SET first_at = now() - interval '100 s' WHERE status = 2")
    await pool.execute("UPDATE expansions SET finished = true")
    delivered = "UPDATE mailing_counts SET slot = rate_slot(now()), slot_n = n, before_n = n WHERE status = 2"
    same_slot = False
    while not same_slot:
        await pool.execute(delivered)
        progress = (await get(service, made.id)).progress
        same_slot = await pool.fetchval("SELECT bool_and(slot = rate_slot(now())) FROM mailing_counts WHERE status = 2")
    named = ("pending", "delivered", "failed", "expired", "cancelled", "skipped", "unknown")
    assert [getattr(progress, name) for name in named] == [2, 4, 6, 8, 10, 12, 14]
    assert (progress.total, progress.attempts, progress.expanded) == (56, 12, True)
    assert progress.last_delivery_time.seconds - progress.first_delivery_time.seconds in (99, 100, 101)
    assert 0.8 <= progress.rate_per_second <= 1.6  # 4 in the present slot and as many in the one before
    assert progress.estimated_finish_time.ToDatetime(UTC) > datetime.now(UTC)
    await pool.execute("UPDATE mailing_counts SET slot = slot - 2")
    await pool.execute("UPDATE expansions SET finished = false WHERE bucket = 3")
    later = (await get(service, made.id)).progress
    assert later.rate_per_second == 0
    assert not later.expanded
    assert not later.HasField("estimated_finish_time")


async def test_mailings_are_listed_newest_first_page_by_page(service: Service) -> None:
    ids = [(await create(service, labels={"n": str(n % 2)}, start_time=at(60 * (n % 2)))).id for n in range(7)]

    async def listed(**fields: Any) -> list[int]:
        found: list[int] = []
        request = ListMailingsRequest(page_size=2, **fields)
        while True:
            page = await service.mailings.ListMailings(request)
            found += [one.id for one in page.mailings]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    assert await listed() == ids[::-1]
    assert await listed(labels={"n": "1"}) == ids[1::2][::-1]
    assert await listed(states=[State.STATE_RUNNING]) == ids[::2][::-1]
    assert await listed(states=[State.STATE_RUNNING, State.STATE_SCHEDULED]) == ids[::-1]
    assert await listed(states=[State.STATE_CANCELLED]) == []


async def test_bad_lists_of_mailings_are_rejected(service: Service) -> None:
    for _ in range(2):
        await create(service)
    token = (await service.mailings.ListMailings(ListMailingsRequest(page_size=1))).next_page_token
    for request in (
        ListMailingsRequest(page_token=token, states=[State.STATE_RUNNING]),
        ListMailingsRequest(page_token=token, labels={"a": "b"}),
        ListMailingsRequest(page_token="!"),
    ):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"):
            await service.mailings.ListMailings(request)
    unknown: Any = [State.STATE_RUNNING, 0, 99]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "page_size", "states[1]", "states[2]"):
        await service.mailings.ListMailings(ListMailingsRequest(page_size=-1, states=unknown))
