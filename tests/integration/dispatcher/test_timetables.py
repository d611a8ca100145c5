"""Mailings with hours, holidays, a local start and an hour from which on it is too late, on a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from dispatcher.model.states import AudienceMode, Reason, Status
from server.domain.clients import ReceiveWindow
from server.domain.mailings import MailingDefinition
from server.domain.timetables import SendingHours
from server.storage.database import Database, DispatcherDatabase
from server.storage.installation import read_installation
from server.storage.mailings import MailingStore
from server.storage.planning import PostgresMailingPlan
from server.storage.timetables import store_timetables
from tests.integration.dispatcher.conftest import Start
from tests.integration.dispatcher.mailings import completed, ends
from tests.support.endpoints import ScriptedSender, answer
from tests.support.eventually import eventually
from tests.support.ledger import add_clients, add_mailing, audit, statuses
from tests.support.locks import blocked, holding

HOUR = timedelta(hours=1)


async def moment(pool: asyncpg.Pool, seconds: float) -> datetime:
    """Return a full second so many seconds from now, by the database's clock."""
    found: datetime = await pool.fetchval(
        "SELECT date_trunc('second', now()) + $1::interval", timedelta(seconds=seconds)
    )
    return found.astimezone(UTC)


def hours(opens: datetime, length: timedelta = HOUR, *weekdays: int, zone: str = "UTC") -> SendingHours:
    return SendingHours(weekdays, opens.timetz().replace(tzinfo=None), length, zone)


async def timed(pool: asyncpg.Pool, *sending: SendingHours, add: dict[str, Any] | None = None, **columns: Any) -> int:
    """Add a mailing with such hours and other columns before anybody has seen it."""
    mailing = await add_mailing(pool, starts_in=3600, **(add or {}))
    columns = {"starts_at": await moment(pool, 0), **columns}
    if sending:
        columns["sending_hours"] = orjson.dumps([one.as_json() for one in sending]).decode()
    sets = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, 2))
    await pool.execute(f"UPDATE mailings SET {sets} WHERE id = $1", mailing, *columns.values())
    return mailing


async def test_nothing_leaves_before_the_hours_open(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 3)
    opens = await moment(pool, 2)
    mailing = await timed(pool, hours(opens))
    start(ScriptedSender())
    await completed(pool, mailing)
    rows = await pool.fetch("SELECT settled_at, due_at FROM ledger")
    assert len(rows) == 3
    assert all(row["due_at"] == opens and row["settled_at"] >= opens for row in rows)


async def test_nothing_starts_after_the_hours_closed_and_the_rest_waits(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the claim does not carry the end of the hours."""
    await add_clients(pool, 4000)
    closes = await moment(pool, 2)
    mailing = await timed(pool, hours(closes - HOUR))
    start(sender := ScriptedSender(delay=0.1), max_concurrency=20)
    batches = "SELECT count(*) FROM batches WHERE due_at = $1"
    opens_again = closes - HOUR + timedelta(days=1)
    await eventually(lambda: pool.fetchval(batches, opens_again), bool)
    await eventually(lambda: sender.in_flight, lambda n: n == 0)
    last = await pool.fetchval("SELECT max(settled_at) FROM ledger")
    assert 0 < len(sender.requests) < 4000
    assert last < closes + timedelta(seconds=1)
    counted = await statuses(pool, mailing)
    assert counted[Status.PENDING] + counted[Status.DELIVERED] == 4000
    assert await audit(pool) == []


async def test_hours_and_windows_that_never_meet_expire_the_message(pool: asyncpg.Pool, start: Start) -> None:
    opens = await moment(pool, -600)
    [apart] = await add_clients(pool, 1, timezone="UTC", window_start=(opens + 3 * HOUR).time(), window_length=HOUR)
    [both] = await add_clients(pool, 1, 100, timezone="UTC", window_start=opens.time(), window_length=HOUR)
    mailing = await timed(pool, hours(opens))
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await ends(pool, mailing) == {
        apart: (Status.EXPIRED, Reason.HOURS_NOT_BEFORE_END),
        both: (Status.DELIVERED, Reason.NONE),
    }
    assert await audit(pool) == []


async def test_the_reason_says_whether_window_or_hours_come_too_late(pool: asyncpg.Pool, start: Start) -> None:
    later = await moment(pool, 3 * 3600)
    [shut] = await add_clients(pool, 1, timezone="UTC", window_start=later.time(), window_length=HOUR)
    [open_] = await add_clients(pool, 1, 100)
    mailing = await timed(pool, hours(later), add={"ends_in": 7200})
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await ends(pool, mailing) == {
        shut: (Status.EXPIRED, Reason.WINDOW_NOT_BEFORE_END),
        open_: (Status.EXPIRED, Reason.HOURS_NOT_BEFORE_END),
    }


async def test_a_window_behind_an_end_that_was_moved_is_the_reason(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when a claim judges what comes after the end as if the mailing had ended."""
    later = await moment(pool, 3 * 3600)
    [client] = await add_clients(pool, 1, timezone="UTC", window_start=later.time(), window_length=HOUR)
    mailing = await timed(pool, skip_after=HOUR)
    dispatcher = start(ScriptedSender())
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM batches WHERE due_at = $1", later), bool)
    await pool.execute("UPDATE mailings SET ends_at = $1, version = version + 1", later - HOUR)
    dispatcher.hint()
    await completed(pool, mailing)
    assert await ends(pool, mailing) == {client: (Status.EXPIRED, Reason.WINDOW_NOT_BEFORE_END)}


async def test_a_holiday_is_a_day_in_the_zone_of_the_client(pool: asyncpg.Pool, start: Start) -> None:
    east, west = "Pacific/Kiritimati", "Pacific/Pago_Pago"  # a day apart at any moment
    [there] = await add_clients(pool, 1, timezone=east)
    [here] = await add_clients(pool, 1, 100, timezone=west)
    today = "(now() AT TIME ZONE $1)::date"
    await pool.execute(f"INSERT INTO calendars (name, days) VALUES ('east', ARRAY[{today}])", east)
    tomorrow = await pool.fetchval(f"SELECT ({today} + 1)::timestamp AT TIME ZONE $1", east)
    await timed(pool, holidays="east")
    start(sender := ScriptedSender())
    await sender.until(1)
    waits = "SELECT due_at FROM batches WHERE client_ids = $1"
    assert await eventually(lambda: pool.fetchval(waits, [there])) == tomorrow
    assert [request[0] & 0xFFFFFFFF for request in sender.requests] == [here]


async def test_a_local_start_is_reached_zone_by_zone(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the mailing begins with the first zone of the world, or all are due with the first of theirs."""
    [first] = await add_clients(pool, 1, timezone="Etc/GMT-3")
    [second] = await add_clients(pool, 1, 100, timezone="Etc/GMT-2")
    begins = await moment(pool, 2)
    local_start = (begins + 3 * HOUR).replace(tzinfo=None)
    mailing = await timed(pool, starts_at=begins - 11 * HOUR, local_start=local_start)
    start(sender := ScriptedSender())
    state = "SELECT begins_at FROM mailings WHERE id = $1"
    assert await eventually(lambda: pool.fetchval(state, mailing)) == begins
    assert await pool.fetchval("SELECT state FROM mailings WHERE id = $1", mailing) == 1
    await sender.until(1)
    waits = "SELECT due_at FROM batches WHERE client_ids = $1"
    assert await eventually(lambda: pool.fetchval(waits, [second])) == begins + HOUR
    assert [request[0] & 0xFFFFFFFF for request in sender.requests] == [first]


async def test_a_local_start_long_past_everywhere_begins_at_once(pool: asyncpg.Pool, start: Start) -> None:
    await add_clients(pool, 2, timezone="America/Lima")
    local_start = (await moment(pool, -86400)).replace(tzinfo=None)
    mailing = await timed(pool, local_start=local_start)
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await statuses(pool, mailing) == {Status.DELIVERED: 2}


async def test_an_end_before_the_local_start_ends_it_and_holds_nothing_up(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when the start is put behind the end, which the table refuses: then no mailing starts any more."""
    await add_clients(pool, 3, timezone="Etc/GMT-3")
    begins = await moment(pool, 3600)
    local_start = (begins + 3 * HOUR).replace(tzinfo=None)
    moments: dict[str, Any] = {"starts_at": begins - 11 * HOUR, "ends_at": await moment(pool, 2)}
    ending = await timed(pool, **moments, local_start=local_start)
    other = await add_mailing(pool)
    start(ScriptedSender())
    await completed(pool, other)
    await completed(pool, ending)
    assert set((await ends(pool, ending)).values()) == {(Status.EXPIRED, Reason.MAILING_ENDED)}
    assert await audit(pool) == []


async def test_who_is_too_late_at_the_start_expires_with_the_reason(pool: asyncpg.Pool, start: Start) -> None:
    [late] = await add_clients(pool, 1, timezone="Etc/GMT-3")
    [timely] = await add_clients(pool, 1, 100, timezone="Etc/GMT-1")
    local_start = (await moment(pool, -60) + HOUR).replace(tzinfo=None)
    mailing = await timed(pool, local_start=local_start, skip_after=HOUR)
    start(ScriptedSender())
    await completed(pool, mailing)
    assert await ends(pool, mailing) == {
        late: (Status.EXPIRED, Reason.TOO_LATE),
        timely: (Status.DELIVERED, Reason.NONE),
    }
    assert await audit(pool) == []


async def test_what_waits_too_long_for_its_endpoint_is_too_late(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when lateness is judged at expansion alone."""
    [client] = await add_clients(pool, 1)
    mailing = await timed(pool, skip_after=HOUR, starts_at=await moment(pool, -3598), add={"backoff": 3.0})
    start(sender := ScriptedSender(lambda client_id, number: answer(500)), max_concurrency=1)
    await sender.until(1)
    await completed(pool, mailing)
    assert await ends(pool, mailing) == {client: (Status.EXPIRED, Reason.TOO_LATE)}
    assert await audit(pool) == []


async def test_who_joins_an_open_mailing_later_is_not_late_for_that(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when lateness counts from the start for those who began to match afterwards."""
    opened = {"audience": AudienceMode.OPEN}
    mailing = await timed(pool, add=opened, skip_after=HOUR, starts_at=await moment(pool, -7200))
    start(sender := ScriptedSender())
    await eventually(lambda: pool.fetchval("SELECT expanded_at FROM mailings WHERE id = $1", mailing))
    await add_clients(pool, 1)
    await sender.until(1)


async def test_changed_hours_hold_for_what_already_waits(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when waiting batches keep the opening of the old hours."""
    await add_clients(pool, 3)
    later = await moment(pool, 3 * 3600)
    mailing = await timed(pool, hours(later))
    dispatcher = start(sender := ScriptedSender())
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM batches WHERE due_at = $1", later), bool)
    database = Database(pool)
    store = MailingStore(database, await read_installation(database), dispatcher.hint)
    patch = MailingDefinition("", sending_hours=(hours(later - 4 * HOUR, 2 * HOUR),))
    await store.update(mailing, "", patch, {"sending_hours"})
    await sender.until(3)
    await completed(pool, mailing)
    assert await audit(pool) == []


async def test_clients_without_a_window_have_the_one_of_the_service(pool: asyncpg.Pool, start: Start) -> None:
    opens = await moment(pool, 3 * 3600)
    await pool.execute(
        "UPDATE dispatch_settings SET default_window_start = $1, default_window_length = $2", opens.time(), HOUR
    )
    await add_clients(pool, 1, timezone="UTC")
    whole_day = {"window_start": opens.time(), "window_length": timedelta(hours=24)}
    [windowed] = await add_clients(pool, 1, 100, timezone="UTC", **whole_day)
    await timed(pool)
    start(sender := ScriptedSender())
    await sender.until(1)
    assert [request[0] & 0xFFFFFFFF for request in sender.requests] == [windowed]
    assert await eventually(lambda: pool.fetchval("SELECT min(due_at) FROM batches WHERE holder IS NULL")) == opens


async def test_what_was_put_off_while_the_hours_changed_is_found(pool: asyncpg.Pool) -> None:
    """Fails when a claim by the old hours that settles after the change waits for these."""
    changed = await moment(pool, -90)
    mailing = await timed(pool, hours(changed), judged_at=changed, state=2)
    due = "SELECT count(*) FROM batches WHERE due_at <= now()"
    for opened, found in ((changed + timedelta(seconds=1), 1), (changed + timedelta(seconds=80), 1)):
        await pool.execute(
            "INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at)"
            " VALUES (0, $1, nextval('batch_no'), '{16}', now() + interval '3 h', $2)",
            mailing,
            opened,
        )
        await PostgresMailingPlan(DispatcherDatabase(pool)).expedite()
        assert await pool.fetchval(due) == found


async def test_stored_quiet_hours_and_holidays_hold_for_what_waits(pool: asyncpg.Pool, start: Start) -> None:
    """Fails when a change of the settings leaves waiting batches as they are."""
    await add_clients(pool, 2, timezone="UTC")
    later = await moment(pool, 3 * 3600)
    database, quiet = Database(pool), ReceiveWindow(later.time(), HOUR)
    await store_timetables(database, quiet, {"here": [later.date() + timedelta(days=20)]})
    mailing = await timed(pool, holidays="here")
    start(sender := ScriptedSender())
    await eventually(
        lambda: pool.fetchval("SELECT count(*) FROM batches WHERE due_at = $1", later), lambda batches: batches == 2
    )
    await store_timetables(database, None, {})
    await sender.until(2)
    assert await pool.fetchval("SELECT array_agg(name) FROM calendars") == ["here"]
    await completed(pool, mailing)
    await store_timetables(database, None, {})
    assert await pool.fetchval("SELECT count(*) FROM calendars") == 0


async def taken_in(pool: asyncpg.Pool, mailing: int) -> None:
    """Take all clients in, as the first step of a replica does."""
    plan = PostgresMailingPlan(DispatcherDatabase(pool))
    await plan.start_due()
    (expansion,) = [one for one in await plan.expandable(100) if one.mailing_id == mailing]
    for bucket in expansion.positions:
        await plan.expand(expansion, bucket, 500, 1000)


async def test_a_step_in_progress_does_not_keep_the_old_quiet_hours(pool: asyncpg.Pool) -> None:
    """Fails when the change does not wait for it: what the step takes in then waits for the old hour."""
    await add_clients(pool, 1, timezone="UTC")
    database, later = Database(pool), await moment(pool, 3 * 3600)
    await store_timetables(database, ReceiveWindow(later.time(), HOUR), {})
    mailing = await add_mailing(pool)
    async with holding(pool, "LOCK TABLE mailing_counts IN SHARE MODE"):
        step = asyncio.create_task(taken_in(pool, mailing))
        await blocked(pool)
        change = asyncio.create_task(store_timetables(database, None, {}))
        await blocked(pool, 2)
    await asyncio.gather(step, change)
    assert await pool.fetchval("SELECT count(*) FROM batches WHERE due_at <= now()") == 1


async def test_a_mailing_created_as_quiet_hours_change_keeps_to_the_new_ones(pool: asyncpg.Pool) -> None:
    """Fails when only mailings are judged that the change saw."""
    await add_clients(pool, 1, timezone="UTC")
    database, later = Database(pool), await moment(pool, 3 * 3600)
    await store_timetables(database, ReceiveWindow(later.time(), HOUR), {})
    first = await add_mailing(pool)
    await taken_in(pool, first)
    async with holding(pool, f"SELECT FROM expansions WHERE mailing_id = {first} FOR UPDATE"):
        change = asyncio.create_task(store_timetables(database, None, {}))
        await blocked(pool)
        second = await add_mailing(pool)
        await taken_in(pool, second)
    await change
    assert await pool.fetchval("SELECT count(*) FROM batches WHERE due_at <= now()") == 2
    assert await pool.fetchval("SELECT array_agg(version ORDER BY id) FROM mailings") == [2, 2]
