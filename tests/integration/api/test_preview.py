"""PreviewMailing on a real server and database: who, what, how many, until when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dispatcher.model.endpoints import Endpoint
from dispatcher.model.rates import LEAST_RATE, MOST_RATE
from dispatcher.model.requests import RequestText, compile_request
from dispatcher.model.states import MailingState, Status
from mailing.v1 import client_pb2, mailing_pb2
from mailing.v1.mailing_service_pb2 import PreviewMailingRequest, PreviewMailingResponse
from server.config.types import ConfiguredEndpoint
from server.domain.previews import FrequencyCap
from server.runtime.api_settings import ApiSettings
from tests.integration.api.calls import add_client, refused, window
from tests.integration.api.conftest import Service
from tests.integration.api.mailing_calls import at, create, get, move_to
from tests.integration.api.preview_calls import (
    MIDNIGHT,
    add_clients,
    exclusions,
    hours,
    preview,
    preview_stored,
    stamp,
)
from tests.integration.api.rows import add_batch, add_mailing
from tests.support.locks import blocked

Encoding = PreviewMailingResponse.Sample.Encoding


class TestAudience:
    async def test_nobody_is_nobody(self, service: Service) -> None:
        assert await preview(service) == PreviewMailingResponse()

    async def test_clients_that_match_are_counted_and_those_left_out_by_reason(self, service: Service) -> None:
        await add_clients(service, 3, tag="gold", receive_window=window(9))
        await add_clients(service, 2, 79261000000, tag="gold", receive_window=window(12))
        await add_clients(service, 4, 79262000000, tag="gold", opted_out=True)
        await add_clients(service, 5, 79263000000, tag="silver")
        gold = client_pb2.ClientFilter(tags=["gold"])
        answer = await preview(service, filter=gold, start_time=hours(0), end_time=hours(12))
        assert answer.audience_size == 3
        assert exclusions(answer) == {"OPTED_OUT": 4, "WINDOW_NOT_BEFORE_END": 2}
        assert answer.sendable_before_end == 3
        assert answer.estimated_finish_time == hours(9)
        assert (await preview(service, filter=gold)).audience_size == 5

    @pytest.mark.parametrize(
        "chosen",
        [
            {"tags": ["gold", "none"]},
            {"operator_codes": ["926"]},
            {"timezones": ["Asia/Tokyo"]},
            {"attributes": {"name": "Anna"}},
        ],
    )
    async def test_every_field_of_the_filter_chooses(self, service: Service, chosen: dict[str, Any]) -> None:
        anna = await add_client(service, 79261234567, timezone="Asia/Tokyo", tag="gold", attributes={"name": "Anna"})
        await add_client(service, 70001234567, timezone="UTC", tag="silver")
        answer = await preview(service, filter=client_pb2.ClientFilter(**chosen))
        assert [sample.client_id for sample in answer.samples] == [anna.id]
        assert answer.audience_size == 1
        nobody = client_pb2.ClientFilter(**chosen, client_ids=[1])
        assert (await preview(service, filter=nobody)).audience_size == 0

    async def test_a_window_that_opens_at_the_end_is_too_late(self, service: Service) -> None:
        await add_clients(service, 1, receive_window=window(9))
        at_the_end = await preview(service, start_time=hours(0), end_time=hours(9))
        assert exclusions(at_the_end) == {"WINDOW_NOT_BEFORE_END": 1}
        a_second_later = await preview(service, start_time=hours(0), end_time=stamp(MIDNIGHT + timedelta(hours=9.001)))
        assert (a_second_later.audience_size, a_second_later.sendable_before_end) == (1, 1)


class TestTexts:
    async def test_texts_that_would_not_be_sent_are_counted_and_are_no_samples(self, service: Service) -> None:
        await add_clients(service, 3, receive_window=window(9))
        await add_clients(service, 2, 79261000000, attributes={"x": "Hello"})
        await add_clients(service, 1, 79262000000, attributes={"x": ""}, opted_out=True)
        answer = await preview(service, "{attributes.x}", start_time=hours(0))
        assert (answer.audience_size, exclusions(answer)) == (2, {"OPTED_OUT": 1, "EMPTY_TEXT": 3})
        assert [sample.text for sample in answer.samples] == ["Hello", "Hello"]


class TestSamples:
    async def test_samples_are_rendered_and_measured(self, service: Service) -> None:
        anna = await add_client(service, 79261234567, timezone="UTC", attributes={"name": "Анна"})
        await add_client(service, 79261234568, timezone="UTC", receive_window=window(9))
        answer = await preview(service, "Dear {attributes.name|friend} [{phone}]", start_time=hours(0))
        assert {sample.text for sample in answer.samples} == {
            "Dear Анна [79261234567]",
            "Dear friend [79261234568]",
        }
        first, second = sorted(answer.samples, key=lambda sample: sample.phone)
        assert (first.client_id, first.characters, first.sms_segments) == (anna.id, 23, 1)
        assert (first.sms_encoding, second.sms_encoding) == (Encoding.ENCODING_UCS2, Encoding.ENCODING_GSM7)
        assert (first.due_time, second.due_time) == (hours(0), hours(9))
        long = await preview(service, "я" * 71)
        assert {(sample.characters, sample.sms_segments) for sample in long.samples} == {(71, 2)}

    async def test_samples_are_the_first_by_id_of_those_who_would_get_it(self, service: Service) -> None:
        clients = await add_clients(service, 6) + await add_clients(service, 1, 79261000000, receive_window=window(9))
        await add_clients(service, 3, 79262000000, opted_out=True)
        ids = sorted(client.id for client in clients)
        answer = await preview(service, start_time=hours(0), end_time=hours(10))
        assert [sample.client_id for sample in answer.samples] == ids[:3]
        every = await preview(service, samples=50, start_time=hours(0), end_time=hours(10))
        assert [sample.client_id for sample in every.samples] == ids
        early = await preview(service, samples=50, start_time=hours(0), end_time=hours(9))
        assert [sample.client_id for sample in early.samples] == [one for one in ids if one != clients[-1].id]

    async def test_more_than_fifty_samples_are_fifty(self, service: Service) -> None:
        await add_clients(service, 51)
        assert len((await preview(service, samples=1000)).samples) == 50
        assert len((await preview(service, samples=2)).samples) == 2


class TestSchedule:
    async def test_without_a_rate_the_last_window_that_opens_is_the_finish(self, service: Service) -> None:
        await add_clients(service, 2, receive_window=window(9))
        await add_clients(service, 2, 79261000000, receive_window=window(15))
        answer = await preview(service, start_time=hours(10))
        assert (answer.sendable_before_end, answer.estimated_finish_time) == (4, hours(33))

    async def test_a_rate_spreads_the_clients(self, service: Service) -> None:
        await add_clients(service, 10)
        answer = await preview(service, start_time=hours(0), max_rate=0.5)
        assert (answer.sendable_before_end, answer.estimated_finish_time.seconds - hours(0).seconds) == (10, 18)
        short = await preview(
            service, start_time=hours(0), end_time=stamp(MIDNIGHT + timedelta(seconds=10)), max_rate=0.5
        )
        assert (short.audience_size, short.sendable_before_end) == (10, 5)
        assert not short.HasField("estimated_finish_time")

    async def test_the_earliest_window_is_served_first_and_a_past_one_opens_again(self, service: Service) -> None:
        """Four with an hour, two at any time; one message in 20 minutes: 3 of the four today, one tomorrow."""
        await add_clients(service, 4, receive_window=window(9))
        await add_clients(service, 2, 79261000000)
        rate = 1 / 1200
        today = await preview(service, start_time=hours(9), end_time=hours(24), max_rate=rate)
        assert (today.audience_size, today.sendable_before_end) == (6, 5)
        both = await preview(service, start_time=hours(9), end_time=hours(48), max_rate=rate)
        assert (both.sendable_before_end, both.estimated_finish_time) == (6, hours(33))

    async def test_windows_are_those_of_the_database_over_a_change_of_the_clocks(self, service: Service) -> None:
        """New York, 2026-11-01: 01:00 to 02:00 comes twice; the database decides which one is meant."""
        await add_clients(service, 1, timezone="America/New_York", receive_window=window(1))
        start = datetime(2040, 11, 3, 12, tzinfo=UTC)
        answer = await preview(service, start_time=stamp(start), max_rate=1)
        assert answer.estimated_finish_time == answer.samples[0].due_time

    async def test_a_slow_mailing_without_end_reaches_all_without_a_finish_time(self, service: Service) -> None:
        """One a day gets through its hour: more than a year is not looked ahead."""
        await add_clients(service, 400, receive_window=window(9))
        answer = await preview(service, max_rate=LEAST_RATE)
        assert (answer.audience_size, answer.sendable_before_end) == (400, 400)
        assert not answer.HasField("estimated_finish_time")

    async def test_the_outermost_times_are_no_trouble(self, service: Service) -> None:
        await add_clients(service, 3, receive_window=window(9))
        latest = Timestamp(seconds=253_370_764_799)
        for rate in (0, LEAST_RATE, MOST_RATE):
            far = await preview(service, start_time=Timestamp(seconds=latest.seconds - 86400), max_rate=rate)
            assert far.audience_size == 3
            assert (await preview(service, end_time=latest, max_rate=rate)).audience_size == 3


class TestStored:
    async def test_a_stored_mailing_is_previewed_as_its_definition(self, service: Service) -> None:
        await add_clients(service, 3, tag="gold")
        stored = await create(service, "Hi {tag}", start_time=hours(0), end_time=hours(1), max_rate=1)
        answer = await preview_stored(service, stored.id)
        assert answer == await preview(service, "Hi {tag}", start_time=hours(0), end_time=hours(1), max_rate=1)
        assert [sample.text for sample in answer.samples] == ["Hi gold"] * 3

    async def test_a_running_mailing_counts_pending_messages_and_new_clients(
        self, service: Service, pool: asyncpg.Pool
    ) -> None:
        clients = await add_clients(service, 4)
        mailing_id = await add_mailing(pool)
        for client in clients[:3]:
            await add_batch(pool, mailing_id, [client.id])
        await settle(pool, clients[0].id, Status.DELIVERED)
        answer = await preview_stored(service, mailing_id)
        assert sorted(sample.client_id for sample in answer.samples) == sorted(one.id for one in clients[1:])
        assert (answer.audience_size, answer.sendable_before_end, exclusions(answer)) == (3, 3, {})

    async def test_into_an_expanded_snapshot_nobody_is_taken_in(self, service: Service, pool: asyncpg.Pool) -> None:
        clients = await add_clients(service, 2)
        snapshot = mailing_pb2.Mailing.AUDIENCE_MODE_SNAPSHOT
        stored = await create(service, audience_mode=snapshot)
        await add_batch(pool, stored.id, [clients[0].id])
        await add_clients(service, 1, 79261000000)
        assert (await preview_stored(service, stored.id)).audience_size == 2
        await pool.execute("UPDATE expansions SET finished = true")
        assert (await preview_stored(service, stored.id)).audience_size == 1

    @pytest.mark.parametrize("state", [MailingState.COMPLETED, MailingState.CANCELLED])
    async def test_a_mailing_that_is_over_is_rejected(
        self, service: Service, pool: asyncpg.Pool, state: MailingState
    ) -> None:
        stored = await create(service)
        await move_to(pool, stored.id, state)
        with refused("FAILED_PRECONDITION", "WRONG_STATE") as info:
            await preview_stored(service, stored.id)
        assert info.metadata == {"found": state.name, "needed": "SCHEDULED,RUNNING,PAUSED"}

    async def test_a_mailing_whose_end_has_passed_is_rejected(self, service: Service, pool: asyncpg.Pool) -> None:
        stored = await create(service, end_time=at(60))
        await pool.execute("UPDATE mailings SET starts_at = '2000-01-01', ends_at = now() - interval '1 s'")
        with refused("FAILED_PRECONDITION", "MAILING_ENDED"):
            await preview_stored(service, stored.id)

    async def test_an_unknown_mailing_is_not_found(self, service: Service) -> None:
        with refused("NOT_FOUND", "MAILING_NOT_FOUND"):
            await preview_stored(service, 404)


async def settle(pool: asyncpg.Pool, client_id: int, status: Status) -> None:
    await pool.execute("UPDATE messages SET status = $2, settled_at = now() WHERE client_id = $1", client_id, status)


class TestFrequencyCap:
    @pytest.fixture
    def api_settings(self) -> ApiSettings:
        return ApiSettings(frequency_cap=FrequencyCap(2, timedelta(hours=1)))

    async def sends(self, pool: asyncpg.Pool, client_id: int, ages: Sequence[float], status: Status) -> None:
        """Add mailings that were sent to the client so many minutes ago, their messages in this status."""
        ids = [await add_mailing(pool, MailingState.COMPLETED) for _ in ages]
        await pool.execute(
            "INSERT INTO client_sends SELECT $1 % 16, $1, $2, array_agg(now() - age * interval '1 min')"
            " FROM unnest($3::float8[]) age",
            client_id,
            ids,
            ages,
        )
        await pool.execute(
            "INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, status, settled_at)"
            " SELECT $1 % 16, id, $1, now(), now(), $3, CASE WHEN $3::smallint > 1 THEN now() END"
            " FROM unnest($2::bigint[]) id",
            client_id,
            ids,
            status,
        )

    @pytest.mark.parametrize("status", list(Status))
    async def test_what_was_not_delivered_for_certain_does_not_count(
        self, service: Service, pool: asyncpg.Pool, status: Status
    ) -> None:
        [client] = await add_clients(service, 1)
        await self.sends(pool, client.id, [10, 20], status)
        answer = await preview(service)
        capped = status in (Status.PENDING, Status.DELIVERED, Status.UNKNOWN)
        assert exclusions(answer) == ({"FREQUENCY_CAP": 1} if capped else {})
        assert (answer.audience_size, len(answer.samples)) == ((0, 0) if capped else (1, 1))

    async def test_who_got_less_within_the_period_is_not_held_back(self, service: Service, pool: asyncpg.Pool) -> None:
        clients = await add_clients(service, 4)
        for client, ages in zip(clients, ([10], [10, 61], [10, 50, 99], [100, 200, 300]), strict=True):
            await self.sends(pool, client.id, ages, Status.DELIVERED)
        answer = await preview(service)
        assert (answer.audience_size, exclusions(answer)) == (3, {"FREQUENCY_CAP": 1})
        assert clients[2].id not in [sample.client_id for sample in answer.samples]
        assert (await preview(service, start_time=at(3600))).audience_size == 4

    async def test_an_important_mailing_is_not_held_back(self, service: Service, pool: asyncpg.Pool) -> None:
        [client] = await add_clients(service, 1)
        await self.sends(pool, client.id, [1, 2, 3], Status.DELIVERED)
        assert (await preview(service)).audience_size == 0
        assert (await preview(service, important=True)).audience_size == 1

    async def test_a_mailing_does_not_hold_itself_back(self, service: Service, pool: asyncpg.Pool) -> None:
        [client] = await add_clients(service, 1)
        await self.sends(pool, client.id, [1, 2], Status.DELIVERED)
        [one, _] = await pool.fetchval("SELECT mailing_ids FROM client_sends")
        await pool.execute("UPDATE messages SET status = 1, settled_at = NULL WHERE mailing_id = $1", one)
        await move_to(pool, one, MailingState.RUNNING)
        assert (await preview_stored(service, one)).audience_size == 1

    async def test_one_reason_is_reported_and_the_opt_out_comes_first(
        self, service: Service, pool: asyncpg.Pool
    ) -> None:
        out = await add_clients(service, 1, opted_out=True)
        late = await add_clients(service, 1, 79261000000, receive_window=window(9))
        for client in out + late:
            await self.sends(pool, client.id, [-14 * 365 * 24 * 60] * 2, Status.DELIVERED)
        answer = await preview(service, start_time=hours(0), end_time=hours(1))
        assert exclusions(answer) == {"OPTED_OUT": 1, "WINDOW_NOT_BEFORE_END": 1}
        assert exclusions(await preview(service, start_time=hours(0), end_time=hours(10))) == {
            "OPTED_OUT": 1,
            "FREQUENCY_CAP": 1,
        }


class TestEndpointRates:
    @pytest.fixture
    def endpoints(self) -> Sequence[ConfiguredEndpoint]:
        rates = {"slow": 1.0, "default": 2.0}
        return [
            ConfiguredEndpoint(Endpoint(name, "http://127.0.0.1:9/", "", max_rate=rate), "fast", "a test")
            for name, rate in rates.items()
        ]

    @pytest.mark.parametrize(
        ("endpoint", "rate", "seconds"), [("slow", 0, 4), ("slow", 10, 4), ("slow", 0.5, 8), ("", 0, 2)]
    )
    async def test_the_lower_rate_of_mailing_and_endpoint_holds(
        self, service: Service, endpoint: str, rate: float, seconds: int
    ) -> None:
        await add_clients(service, 5)
        answer = await preview(service, start_time=hours(0), endpoint=endpoint, max_rate=rate)
        assert answer.estimated_finish_time.seconds - hours(0).seconds == seconds


class TestRefusals:
    async def test_a_source_is_required(self, service: Service) -> None:
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "mailing_id"):
            await service.mailings.PreviewMailing(PreviewMailingRequest())

    async def test_a_bad_id_and_a_negative_number_of_samples_are_named_together(self, service: Service) -> None:
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "samples", "mailing_id"):
            await service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=-1, samples=-1))

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"text": ""}, "mailing.text"),
            ({"text": "Hi {nobody}"}, "mailing.text"),
            ({"filter": client_pb2.ClientFilter(timezones=["Nowhere"])}, "mailing.filter.timezones[0]"),
            ({"max_rate": -1}, "mailing.max_rate"),
            ({"retry": mailing_pb2.RetryPolicy(initial_backoff=Duration(nanos=1))}, "mailing.retry.initial_backoff"),
            ({"start_time": hours(1), "end_time": hours(1)}, "mailing.end_time"),
            ({"end_time": Timestamp(seconds=1)}, "mailing.end_time"),
        ],
    )
    async def test_a_mailing_is_checked_as_at_its_creation(
        self, service: Service, fields: dict[str, Any], path: str
    ) -> None:
        for call in (preview, create):
            with refused("INVALID_ARGUMENT", "INVALID_FIELD", path):
                await call(service, **{"text": "Hello", **fields})

    async def test_an_endpoint_must_be_known(self, service: Service) -> None:
        with refused("NOT_FOUND", "ENDPOINT_NOT_FOUND"):
            await preview(service, endpoint="nowhere")


async def test_nothing_is_stored(service: Service, pool: asyncpg.Pool) -> None:
    await add_clients(service, 3)
    await preview(service, max_rate=1)
    for table in ("mailings", "messages", "batches", "requests", "expansions", "journal"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert service.hints.count == 0


async def test_previews_that_wait_leave_the_connections_to_others(service: Service, pool: asyncpg.Pool) -> None:
    """Fails when previews do not wait for one another: then the pool is empty, and GetMailing UNAVAILABLE."""
    stored = await create(service)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK clients IN ACCESS EXCLUSIVE MODE")
        waiting = [service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=stored.id)) for _ in range(30)]
        await blocked(pool)
        assert (await get(service, stored.id)).id == stored.id
        waiting.pop().cancel()
    for call in waiting:
        assert (await call).audience_size == 0


async def test_a_preview_that_is_cancelled_gives_its_turn_on(service: Service, pool: asyncpg.Pool) -> None:
    stored = await create(service)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK clients IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(grpc.aio.AioRpcError):
            await service.mailings.PreviewMailing(PreviewMailingRequest(mailing_id=stored.id), timeout=0.2)
    assert (await preview_stored(service, stored.id)).audience_size == 0


class TestAddresses:
    @pytest.fixture
    def endpoints(self) -> Sequence[ConfiguredEndpoint]:
        form = compile_request(RequestText("http://127.0.0.1:9/", json=["{attributes.email}"], requires=["email"]))
        endpoint = Endpoint("post", "http://127.0.0.1:9/", "", request=form)
        return [ConfiguredEndpoint(endpoint, "fast", "a test")]

    async def test_who_lacks_what_the_endpoint_requires_is_left_out(self, service: Service) -> None:
        """Fails when the preview asks another endpoint, or none."""
        await add_clients(service, 2, attributes={"email": "a@b"})
        await add_clients(service, 3, 79261000000, attributes={"email": ""})
        await add_clients(service, 1, 79262000000, opted_out=True)
        answer = await preview(service, endpoint="post")
        assert (answer.audience_size, exclusions(answer)) == (2, {"OPTED_OUT": 1, "NO_ADDRESS": 3})
        assert len(answer.samples) == 2
