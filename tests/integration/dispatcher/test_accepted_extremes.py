"""Whatever the API accepts runs without stopping a neighbour: every field at and beyond its bounds, in any combination.

Seen to fail: with rates that neither the API nor a statement bounds, of which the database computes no slots.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mailing.v1.civil_date_time_pb2 import CivilDateTime
from mailing.v1.client_pb2 import Client, ClientFilter, ReceiveWindow
from mailing.v1.client_service_pb2 import CreateClientRequest
from mailing.v1.client_service_pb2_grpc import ClientServiceStub
from mailing.v1.mailing_pb2 import Mailing, RetryPolicy, SendingHours
from mailing.v1.mailing_service_pb2 import CreateMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from mailing.v1.time_of_day_pb2 import TimeOfDay
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed
from tests.support.api import serving
from tests.support.endpoints import ScriptedSender, answer
from tests.support.ledger import audit

if TYPE_CHECKING:
    from mailing.v1.client_service_pb2_grpc import ClientServiceAsyncStub
    from mailing.v1.mailing_service_pb2_grpc import MailingServiceAsyncStub

LAST = 253_402_300_799
"""The last second of the year 9999, which is the last of a Timestamp."""

ZONES = ["UTC", "Asia/Kathmandu", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Moscow"]

durations = st.sampled_from([0, 1, 59, 60, 3600, 86_399, 86_400, 366 * 86_400, 315_576_000_000])
nanos = st.sampled_from([0, 1, 9_999_999, 10_000_000, 999_999_999])
spans = st.builds(lambda seconds, parts: Duration(seconds=seconds, nanos=parts), durations, nanos)
times = st.builds(
    lambda seconds, parts: Timestamp(seconds=seconds, nanos=parts),
    st.one_of(
        st.sampled_from([-62_135_596_800, 0, LAST - 1, LAST]),
        st.integers(-2, 90).map(lambda ahead: int((datetime.now(UTC) + timedelta(seconds=ahead)).timestamp())),
    ),
    nanos,
)
clocks = st.builds(
    lambda hours, minutes: TimeOfDay(hours=hours, minutes=minutes), st.sampled_from([0, 23]), st.sampled_from([0, 59])
)
TEXTS = {
    "long": "x" * 4000,
    "longer": "x" * 4001,
    "missing": "{attributes.y}",
    "grows": "{attributes.x}" * 285,
    "many": "{tag}{phone}" * 300,
    "faces": "\U0001f600" * 2000,
    "braces": "{{{tag}}}",
}
texts = st.sampled_from([*TEXTS])
rates = st.sampled_from([0.0, 0.0001, 0.001, 1.0, 999_999.0, 1e6, 1e12, 5.55e-17, 1e-300, 5e-324])
hours = st.builds(
    lambda weekdays, start, duration, zone: SendingHours(
        weekdays=weekdays, start=start, duration=duration, timezone=zone
    ),
    st.sampled_from([[], [1], [1, 2, 3, 4, 5, 6, 7]]),
    clocks,
    spans,
    st.sampled_from(["", *ZONES]),
)
retries = st.builds(
    lambda most, first, longest: RetryPolicy(max_attempts=most, initial_backoff=first, max_backoff=longest),
    st.sampled_from([0, 1, 100]),
    spans,
    spans,
)
locals_ = st.builds(
    lambda year, month: CivilDateTime(year=year, month=month, day=1, hours=23, minutes=59),
    st.sampled_from([1, 1970, 2026, 9999]),
    st.sampled_from([1, 12]),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "text": texts,
    "title": st.sampled_from(["", "\u202e" * 200]),
    "start_time": times,
    "end_time": times,
    "local_start": locals_,
    "audience_mode": st.integers(0, 2),
    "semantics": st.integers(0, 2),
    "priority": st.sampled_from([-1000, 0, 1000]),
    "max_rate": rates,
    "retry": retries,
    "labels": st.sampled_from([{}, {"l" * 100: "v" * 100}, {f"l{n}": "" for n in range(32)}]),
    "sending_hours": st.lists(hours, max_size=2),
    "skip_after": spans,
    "max_per_day": st.sampled_from([0, 1, 2, 10**9, 2**62]),
    "max_per_day_timezone": st.sampled_from(["", *ZONES]),
}
strange = st.sets(st.sampled_from([*FIELDS, "max_rate", "retry"]), max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({"text": texts, **{name: FIELDS[name] for name in names}})
)
"""Mailings of few fields, of which the API accepts about half."""

windows = st.builds(lambda start, duration: ReceiveWindow(start=start, duration=duration), clocks, spans)
people = st.builds(
    lambda zone, window: Client(timezone=zone, tag="strange", attributes={"x": "y" * 1000}, receive_window=window),
    st.sampled_from(ZONES),
    st.none() | windows,
)


class Api:
    """A caller of the API, which may refuse what is asked of it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.clients: ClientServiceAsyncStub = ClientServiceStub(channel)
        self.mailings: MailingServiceAsyncStub = MailingServiceStub(channel)
        self.phones = 79_000_000_000
        self.accepted = 0

    async def client(self, client: Client) -> None:
        self.phones += 1
        client.phone = str(self.phones)
        await self._unless_refused(self.clients.CreateClient(CreateClientRequest(client=client)))

    async def strange(self, fields: dict[str, Any]) -> None:
        mailing = Mailing(**fields | {"text": TEXTS[fields["text"]]}, filter=ClientFilter(tags=["strange"]))
        await self._unless_refused(self.mailings.CreateMailing(CreateMailingRequest(mailing=mailing)))

    async def _unless_refused(self, call: Any) -> None:
        self.accepted += await call.code() is grpc.StatusCode.OK
        assert await call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), await call.details()

    async def neighbour(self, mailing: Mailing) -> int:
        mailing.MergeFrom(Mailing(text="Hi", filter=ClientFilter(tags=["neighbour"])))
        mailing.audience_mode = Mailing.AUDIENCE_MODE_SNAPSHOT
        return (await self.mailings.CreateMailing(CreateMailingRequest(mailing=mailing))).mailing.id


@pytest.fixture
async def api(pool: asyncpg.Pool, start: Start) -> AsyncIterator[Api]:
    """Lend a caller; what it asks for is delivered, with an error now and then."""
    numbers = count()
    start(ScriptedSender(lambda client_id, number: answer(500 if next(numbers) % 9 == 0 else 200)))
    async with serving(pool) as (_, address), grpc.aio.insecure_channel(address) as channel:
        found = Api(channel)
        for _ in range(20):
            await found.client(Client(timezone="UTC", tag="neighbour"))
        yield found


@settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
)
@given(strangers=st.lists(people, min_size=3, max_size=6), mailings=st.lists(strange, min_size=15, max_size=25))
async def test_what_is_accepted_stops_no_neighbour(
    api: Api, pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture, strangers: list[Client], mailings: list[Any]
) -> None:
    for client in strangers:
        await api.client(client)
    for fields in mailings:
        await api.strange(fields)
    for neighbours in (Mailing(), Mailing(max_rate=200.0), Mailing(max_per_day=1000)):
        await completed(pool, await api.neighbour(neighbours))
    assert api.accepted > 20
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []
    assert await audit(pool) == []
