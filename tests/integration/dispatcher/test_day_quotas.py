"""Daily quotas over all replicas: never more than the limit, the rest tomorrow, and the length of a day."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dispatcher import day_quota
from dispatcher.dispatcher import Dispatcher
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.quotas import DayLimit, QuotaGrant, QuotaRequest, QuotaReturn
from dispatcher.model.states import MailingState, Reason, Status
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed, ends
from tests.support.endpoints import ScriptedSender
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses

HOUR = timedelta(hours=1)


async def zone_with_midnight_in(pool: asyncpg.Pool, seconds: int) -> str:
    """Return a time zone, by its offset, in which the next day begins in so many seconds or a little less."""
    now = await pool.fetchval("SELECT extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC')::int % 86400")
    behind = now - (86400 - seconds)  # what its clock is behind UTC, as Postgres wants it
    minutes, rest = divmod(abs(behind), 60)
    return f"<X>{'-' if behind < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


async def limited(pool: asyncpg.Pool, most: int, zone: str = "UTC", **about: float) -> int:
    mailing = await add_mailing(pool, **about)  # type: ignore[arg-type]
    await pool.execute("UPDATE mailings SET max_per_day = $1, max_per_day_timezone = $2", most, zone)
    return mailing


def sent(*senders: ScriptedSender) -> int:
    return sum(len(sender.requests) for sender in senders)


async def used(pool: asyncpg.Pool, key: str) -> int:
    count: int = await pool.fetchval("SELECT coalesce(sum(used), 0)::int FROM day_quotas WHERE key = $1", key)
    return count


def is_at_rest(*dispatchers: Dispatcher) -> bool:
    """Return whether no replica holds a message."""
    return not any(dispatcher.registry.leases for dispatcher in dispatchers)


@pytest.mark.parametrize("whose", ["mailing", "endpoint"])
async def test_three_replicas_together_keep_a_quota(pool: asyncpg.Pool, start: Start, whose: str) -> None:
    """Fails (with 2,000) when replicas count for themselves."""
    await add_clients(pool, 2000)
    most, zone = 700, "Europe/Moscow"
    if whose == "mailing":
        mailing = await limited(pool, most, zone)
        endpoint, key = Endpoint("default", "http://127.0.0.1:1/", ""), f"mailing/{mailing}"
    else:
        mailing = await add_mailing(pool)
        endpoint, key = (
            Endpoint("default", "http://127.0.0.1:1/", "", day_limit=DayLimit(most, zone)),
            "endpoint/default",
        )
    senders = [ScriptedSender() for _ in range(3)]
    replicas = [start(sender, endpoint=endpoint) for sender in senders]
    await eventually(lambda: sent(*senders) >= most and is_at_rest(*replicas), within=30)
    found = await statuses(pool, mailing)
    assert (sent(*senders), found[Status.DELIVERED], await used(pool, key)) == (most, most, most)
    assert found[Status.PENDING] > 0
    assert await audit(pool) == []


async def test_the_rest_leaves_when_the_next_day_begins(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when what was permitted today leaves tomorrow, or tomorrow is not noticed at once."""
    await add_clients(pool, 250)
    midnight = datetime.now(UTC) + timedelta(seconds=4)
    mailing = await limited(pool, 100, await zone_with_midnight_in(pool, 4))
    sender = ScriptedSender()
    replica = start(sender)
    await eventually(lambda: sent(sender) == 100 and is_at_rest(replica))
    assert datetime.now(UTC) < midnight, "this machine is too slow to see the day before its end"
    await eventually(lambda: sent(sender) == 200 and is_at_rest(replica))
    assert datetime.now(UTC) < midnight + timedelta(seconds=3)
    counts = await pool.fetch("SELECT used FROM day_quotas WHERE key = $1 ORDER BY day", f"mailing/{mailing}")
    assert [row["used"] for row in counts] == [100, 100]


async def test_what_a_quota_held_back_until_the_end_expires_with_its_reason(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 50)
    mailing = await limited(pool, 10, ends_in=2.0)
    start(ScriptedSender())
    await completed(pool, mailing)
    assert Counter((await ends(pool, mailing)).values()) == {
        (Status.DELIVERED, Reason.NONE): 10,
        (Status.EXPIRED, Reason.DAILY_LIMIT): 40,
    }
    assert await audit(pool) == []


async def test_a_quota_that_changes_holds_at_once(pool: asyncpg.Pool, start: Start) -> None:
    """A lower one than what left already lets nothing leave; a higher one the difference."""
    await add_clients(pool, 300)
    await limited(pool, 50)
    sender = ScriptedSender()
    replica = start(sender)
    await eventually(lambda: sent(sender) == 50 and is_at_rest(replica))
    await pool.execute("UPDATE mailings SET max_per_day = 80, version = version + 1")
    replica.hint()
    await eventually(lambda: sent(sender) == 80 and is_at_rest(replica))
    await pool.execute("UPDATE mailings SET max_per_day = 60, version = version + 1")
    replica.hint()
    await eventually(lambda: is_at_rest(replica))
    await pool.execute("UPDATE mailings SET max_per_day = 0, version = version + 1")
    assert sent(sender) == 80
    replica.hint()
    await eventually(lambda: sent(sender) == 300)


async def test_what_a_killed_replica_held_is_lost_for_the_day(pool: asyncpg.Pool, start: Start) -> None:
    """Less than the quota leaves then, and never more."""
    await add_clients(pool, 100)
    mailing = await limited(pool, 30)
    killed = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    await killed.quotas.permit(QuotaRequest(f"mailing/{mailing}", DayLimit(30), 12))
    sender = ScriptedSender()
    replica = start(sender)
    await eventually(lambda: sent(sender) == 18 and is_at_rest(replica))


async def test_permits_that_nobody_needs_come_back(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when a paused mailing, or a replica that stops, keeps what it reserved."""
    await add_clients(pool, 400)
    mailing = await limited(pool, 1000)
    key = f"mailing/{mailing}"
    sender = ScriptedSender(delay=0.02)
    replica = start(sender, max_concurrency=2)
    await eventually(lambda: sent(sender) > 5)
    assert await used(pool, key) > sent(sender)
    await pool.execute("UPDATE mailings SET state = $1, version = version + 1", MailingState.PAUSED)
    await eventually(lambda: is_at_rest(replica))
    await eventually(lambda: used(pool, key), lambda count: count == sent(sender))
    await pool.execute("UPDATE mailings SET state = $1, version = version + 1", MailingState.RUNNING)
    replica.hint()
    before = sent(sender)
    await eventually(lambda: sent(sender) > before)
    await replica.stop(grace=5.0)
    await eventually(lambda: used(pool, key), lambda count: count == sent(sender))


class LateAnswers:
    """Quotas of a database whose answers arrive when they are let through."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._quotas = dispatcher_storage(DispatcherDatabase(pool), uuid4()).quotas
        self.given, self.through = asyncio.Event(), asyncio.Event()

    async def permit(self, request: QuotaRequest) -> QuotaGrant:
        grant = await self._quotas.permit(request)
        self.given.set()
        await self.through.wait()
        return grant

    async def give_back(self, returns: Sequence[QuotaReturn]) -> None:
        await self._quotas.give_back(returns)


async def test_permits_that_were_asked_for_before_a_stop_come_back(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when a replica that stops does not hear the answer to its last question."""
    await add_clients(pool, 100)
    key, quotas = f"mailing/{await limited(pool, 1000)}", LateAnswers(pool)
    replica = start(ScriptedSender(), quotas=quotas)
    await quotas.given.wait()
    assert await used(pool, key) > 0
    await replica.stop(grace=5.0)
    await eventually(lambda: is_at_rest(replica))
    quotas.through.set()
    await eventually(lambda: used(pool, key), lambda count: count == 0)


async def test_a_returned_permit_is_given_to_another(
    pool: asyncpg.Pool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_quota, "RECHECK", 0.3)
    await add_clients(pool, 100)
    mailing = await limited(pool, 30)
    key = f"mailing/{mailing}"
    other = dispatcher_storage(DispatcherDatabase(pool), uuid4())
    grant = await other.quotas.permit(QuotaRequest(key, DayLimit(30), 12))
    sender = ScriptedSender()
    replica = start(sender)
    await eventually(lambda: sent(sender) == 18 and is_at_rest(replica))
    await other.quotas.give_back([QuotaReturn(key, grant.day, 12)])
    await eventually(lambda: sent(sender) == 30 and is_at_rest(replica))


async def test_a_rate_and_quotas_hold_together(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 100)
    await limited(pool, 40)
    await pool.execute("UPDATE mailings SET max_rate = 200")
    sender = ScriptedSender()
    endpoint = Endpoint("default", "http://127.0.0.1:1/", "", day_limit=DayLimit(25))
    replica = start(sender, endpoint=endpoint)
    await eventually(lambda: sent(sender) == 25 and is_at_rest(replica))
    moments = [moment for *_, moment in sender.requests]
    assert max(moments) - min(moments) > 24 / 200 - 0.03


async def test_permits_are_given_out_once(pool: asyncpg.Pool) -> None:
    """Forty askers at once get the quota together, and not one more."""
    storages = [dispatcher_storage(DispatcherDatabase(pool), uuid4()) for _ in range(4)]
    request = QuotaRequest("endpoint/x", DayLimit(333, "Asia/Tokyo"), 10)
    answers = await asyncio.gather(*(storages[n % 4].quotas.permit(request) for n in range(40)))
    assert sum(grant.granted for grant in answers) == 333


async def test_without_a_quota_nothing_is_counted(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 20)
    mailing = await add_mailing(pool)
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await pool.fetchval("SELECT count(*) FROM day_quotas") == 0


CHANGES = [
    ("Europe/Berlin", date(2026, 3, 29), 23), ("Europe/Berlin", date(2026, 10, 25), 25),
    ("America/New_York", date(2027, 3, 14), 23), ("America/Havana", date(2026, 3, 8), 23),
    ("America/Havana", date(2026, 11, 1), 25), ("America/Santiago", date(2026, 9, 6), 23),
    ("Africa/Cairo", date(2026, 4, 24), 23), ("Africa/Cairo", date(2026, 10, 29), 25),
    ("Asia/Beirut", date(2026, 3, 29), 23), ("Atlantic/Azores", date(2026, 10, 25), 25),
    ("Australia/Lord_Howe", date(2026, 10, 4), 23.5), ("Europe/Moscow", date(2026, 5, 1), 24),
]  # fmt: skip


def first_moment(zone: str, day: date) -> datetime:
    """Return the first minute in which it is this day in a zone, found by looking at each."""
    local, moment = ZoneInfo(zone), datetime.combine(day, time(), UTC) - 15 * HOUR
    while moment.astimezone(local).date() != day:
        moment += timedelta(minutes=1)
    return moment


@pytest.mark.parametrize(("zone", "day", "hours"), CHANGES)
async def test_a_day_is_as_long_as_clocks_make_it(pool: asyncpg.Pool, zone: str, day: date, hours: float) -> None:
    query = "SELECT day_begins($1, $2) AS begins, day_begins($1, $2 + 1) AS ends"
    row = await pool.fetchrow(query, zone, day)
    assert row is not None
    assert (row["begins"], row["ends"]) == (first_moment(zone, day), first_moment(zone, day + timedelta(days=1)))
    assert (row["ends"] - row["begins"]) / HOUR == hours
