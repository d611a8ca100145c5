"""Rates over all replicas, the order of priorities, and the frequency cap."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from random import Random
from uuid import uuid4

import asyncpg
import pytest

from dispatcher.model.endpoints import Answer, Endpoint, SlotRequest, Slots
from dispatcher.model.rates import LEAST_RATE, MOST_RATE, bounded_rate, is_rate
from dispatcher.model.settings import FrequencyCap
from dispatcher.model.states import Reason, Status
from dispatcher.ports import RateSlotStore, Request
from dispatcher.rate_limiter import HORIZON
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.queries import load_queries
from tests.integration.dispatcher.conftest import ENDPOINT, Start
from tests.integration.dispatcher.mailings import completed, ends
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

PROGRESS = load_queries("mailings.sql")["get_mailings"]


def busiest_second(*senders: ScriptedSender) -> int:
    """Return the most requests that began within any second."""
    moments = sorted(moment for sender in senders for *_, moment in sender.requests)
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("limited", ["mailing", "endpoint"])
async def test_three_replicas_together_keep_a_rate(pool: asyncpg.Pool, start: Start, limited: str) -> None:
    """Never more than 1.05 times in any second. Fails (3 times as many) when replicas count for themselves."""
    rate = 100.0
    await add_clients(pool, 2000)
    mailing = await add_mailing(pool)
    endpoint = ENDPOINT
    if limited == "mailing":
        await pool.execute("UPDATE mailings SET max_rate = $1", rate)
    else:
        endpoint = Endpoint("default", "http://127.0.0.1:1/", "", max_rate=rate)
    senders = [ScriptedSender() for _ in range(3)]
    for sender in senders:
        start(sender, endpoint=endpoint)

    async def sent() -> int:
        return sum(len(sender.requests) for sender in senders)

    await eventually(sent, lambda requests: requests >= 4 * rate)
    assert busiest_second(*senders) <= 1.05 * rate
    assert sum(bool(sender.requests) for sender in senders) >= 2
    moments = sorted(moment for sender in senders for *_, moment in sender.requests)
    # A machine that is busy with other things misses moments, and what is missed is lost.
    assert 4 * rate / (moments[-1] - moments[0]) > 0.6 * rate
    assert (await statuses(pool, mailing)).total() == 2000
    (row,) = await pool.fetch(*PROGRESS.bind(ids=[mailing]))
    assert 0.5 * rate < row["rate"] < 1.3 * rate


async def test_moments_are_given_out_once(pool: asyncpg.Pool) -> None:
    """Twenty askers at once: no two get the same moment, and none lies beyond the horizon."""
    storages = [dispatcher_storage(DispatcherDatabase(pool), uuid4()) for _ in range(4)]
    requests = [SlotRequest("mailing/1", 200.0, 15), SlotRequest("endpoint/x", 50.0, 3)]
    answers = await asyncio.gather(*(storages[n % 4].rates.reserve(requests) for n in range(20)))
    for key, rate in (("mailing/1", 200.0), ("endpoint/x", 50.0)):
        moments = sorted(
            given[key].since + n * given[key].step for _, given in answers for n in range(given[key].granted)
        )
        gaps = [later - earlier for earlier, later in pairwise(moments)]
        assert min(gaps) > 0.999 / rate
    for read_at, given in answers:
        for slots in given.values():
            assert slots.granted == 0 or slots.since + (slots.granted - 1) * slots.step <= read_at + HORIZON + 0.001


async def test_what_nobody_asked_for_in_time_is_lost(pool: asyncpg.Pool) -> None:
    storage = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await pool.execute("INSERT INTO rate_slots (key, next_at) VALUES ('mailing/1', now() - interval '1 h')")
    read_at, given = await storage.rates.reserve([SlotRequest("mailing/1", 10.0, 1000)])
    slots = given["mailing/1"]
    assert abs(slots.since - read_at) < 0.001
    assert slots.granted == int(10 * HORIZON) + 1


EXTREMES = [1e12, 1e308, 5.55e-17, 1e-300, 5e-324, LEAST_RATE, MOST_RATE]


async def test_slots_of_any_rate_leave_a_neighbour_its_own(pool: asyncpg.Pool) -> None:
    """Fails for the first one when rates are not bounded: its step is an interval of no length."""
    storage, random = dispatcher_storage(DispatcherDatabase(pool), uuid4()), Random(4)
    accepted = [10 ** random.uniform(-3, 6) for _ in range(40)]
    assert all(is_rate(rate) for rate in accepted)
    for number, rate in enumerate([*EXTREMES, *accepted]):
        requests = [SlotRequest(f"mailing/{number}", rate, 500), SlotRequest(f"endpoint/{number}", 50.0, 1)]
        await storage.rates.reserve(requests)
        _, given = await storage.rates.reserve(requests)
        assert given[f"endpoint/{number}"].granted == 1, rate
        assert given[f"mailing/{number}"].step == 1 / bounded_rate(rate)
    raw = load_queries("endpoints.sql")["reserve"]
    keys = [f"raw/{rate}" for rate in EXTREMES]
    rows = await pool.fetch(
        *raw.bind(keys=keys, rates=EXTREMES, wanted=[9] * len(keys), horizon=timedelta(seconds=HORIZON))
    )
    assert {row["key"] for row in rows} == set(keys)


async def test_mailings_of_extreme_rates_do_not_stop_a_rated_neighbour(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 20)
    for rate in EXTREMES:
        await pool.execute("UPDATE mailings SET max_rate = $2 WHERE id = $1", await add_mailing(pool), rate)
    neighbour = await add_mailing(pool)
    await pool.execute("UPDATE mailings SET max_rate = 100 WHERE id = $1", neighbour)
    start(sender := ScriptedSender())
    await completed(pool, neighbour)
    assert max(sender.counts.values()) == 1


class _Refusing:
    """Slots of the database, but for one key that it cannot answer, alone or beside others."""

    def __init__(self, rates: RateSlotStore, key: str) -> None:
        self._rates, self._key = rates, key

    async def reserve(self, requests: Sequence[SlotRequest]) -> tuple[float, dict[str, Slots]]:
        if any(request.key == self._key for request in requests):
            raise asyncpg.DivisionByZeroError("division by zero")
        return await self._rates.reserve(requests)


async def test_a_key_without_slots_does_not_stop_the_others(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 20)
    refused, neighbour = await add_mailing(pool), await add_mailing(pool)
    await pool.execute("UPDATE mailings SET max_rate = 100")
    rates = dispatcher_storage(DispatcherDatabase(pool), uuid4()).rates
    start(ScriptedSender(), rates=_Refusing(rates, f"mailing/{refused}"))
    await completed(pool, neighbour)
    assert await statuses(pool, refused) == {Status.PENDING: 20}


async def test_a_small_mailing_does_not_wait_for_a_large_one(pool: asyncpg.Pool, start: Start) -> None:
    """The endpoint takes 800 messages a second, so the large one alone takes half a minute."""
    await add_clients(pool, 50, 1_000_000, tag="few")
    await add_clients(pool, 20_000)
    await add_mailing(pool)
    start(sender := ScriptedSender(delay=0.02), max_concurrency=16)
    await sender.until(500)
    small = await add_mailing(pool, where='{"tags": ["few"]}')
    await completed(pool, small, within=8.0)
    assert await statuses(pool, small) == {Status.DELIVERED: 50}


async def test_a_higher_priority_goes_first_and_the_lower_does_not_starve(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 4000)
    low = await add_mailing(pool, priority=0)
    high = await add_mailing(pool, priority=5)
    start(sender := ScriptedSender(delay=0.01), max_concurrency=16)
    await completed(pool, high)
    before = sum(one[0] >> 32 == low for one in sender.requests)
    assert 0 < before < 4000 // 2
    await completed(pool, low)


async def test_a_client_gets_no_more_than_the_cap_allows(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the claim does not ask `admit`."""
    await add_clients(pool, 200)
    cap = FrequencyCap(2, 3600.0)
    start(ScriptedSender(), cap=cap)
    start(ScriptedSender(), cap=cap)
    mailings = [await add_mailing(pool) for _ in range(4)]
    important = await add_mailing(pool)
    await pool.execute("UPDATE mailings SET important = true WHERE id = $1", important)
    for mailing in (*mailings, important):
        await completed(pool, mailing)
    assert await statuses(pool, important) == {Status.DELIVERED: 200}
    per_client = await pool.fetch(
        "SELECT client_id, count(*) FILTER (WHERE status = 2) AS sent FROM ledger"
        " WHERE mailing_id = ANY($1) GROUP BY 1",
        mailings,
    )
    assert {row["sent"] for row in per_client} <= {1, 2}
    skipped = [end for mailing in mailings for end in (await ends(pool, mailing)).values() if end[0] != 2]
    assert set(skipped) == {(Status.SKIPPED, Reason.FREQUENCY_CAP)}
    assert await audit(pool) == []


async def test_what_did_not_arrive_does_not_count_towards_the_cap(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 15)
    refused = await add_mailing(pool)
    script = {refused: answer(400)}
    sender = _ByMailing(script)
    start(sender, cap=FrequencyCap(1, 3600.0))
    await completed(pool, refused)
    assert await statuses(pool, refused) == {Status.FAILED: 15}
    taken = await add_mailing(pool)
    await completed(pool, taken)
    assert await statuses(pool, taken) == {Status.DELIVERED: 15}
    capped = await add_mailing(pool)
    await completed(pool, capped)
    assert await statuses(pool, capped) == {Status.SKIPPED: 15}


class _ByMailing(ScriptedSender):
    """Answers by mailing."""

    def __init__(self, script: Mapping[int, Answer]) -> None:
        super().__init__()
        self._by_mailing = script

    async def post(self, request: Request) -> Answer | None:
        reply = await super().post(request)
        return self._by_mailing.get(request.message_id >> 32, reply)
