"""The model database and Postgres side by side: the same statements at the same moments, the same answers.

Everything happens one after the other, on a clock that the test turns: in Postgres `now()` is
found in a schema of the test's own. Batches are numbered by a sequence, whose order within a
statement is not defined; new ones get the model's number, so that later answers are comparable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson
import pytest

from dispatcher.model.batches import ClaimedBatch, OpenWork
from dispatcher.model.endpoints import SlotRequest, Slots
from dispatcher.model.mailings import Expansion, Mailing, PollResult, Step
from dispatcher.model.outcomes import Settlement
from dispatcher.model.quotas import QuotaGrant, QuotaRequest, QuotaReturn
from dispatcher.model.states import MailingState, Status, Suspension
from dispatcher.ports import Render
from server.domain.timetables import SendingHours
from server.storage.client_deletion import ClientDeletion
from server.storage.database import Database as Connections
from server.storage.database import DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.installation import Installation
from server.storage.mailing_retry import MailingRetry
from server.storage.planning import LOOK_AGAIN
from server.storage.queries import load_queries
from tests.simulation.database import Database, Zones
from tests.simulation.rows import BUCKETS, Client, MailingRow, Place
from tests.simulation.stores import delete_client, retry
from tests.simulation.timetables import Timetable
from tests.simulation.world import EPOCH, World

T = TypeVar("T")

REPLICAS = {f"replica {number}": UUID(int=number) for number in (1, 2)}
Window = tuple[float, float]
"""When a window opens, in seconds of the day, and how long it is."""

_FIRST_NEW = 1_000_000
_MAILINGS = load_queries("mailings.sql")

SET_UP = f"""
CREATE SCHEMA simulation;
CREATE TABLE simulation.clock AS SELECT now() AS moment;
CREATE FUNCTION simulation.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT moment FROM simulation.clock';
CREATE FUNCTION simulation.clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT simulation.now()';
ALTER TABLE expansions ALTER started_at SET DEFAULT simulation.now();
ALTER TABLE client_changes ALTER at SET DEFAULT simulation.now();
DELETE FROM client_change_seqs WHERE bucket >= {BUCKETS};
DELETE FROM buckets WHERE bucket >= {BUCKETS};
DO $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET search_path = simulation, pg_catalog, public', current_database());
END $$;
"""
"""Makes a fresh database one whose time the test turns; it holds for connections that are opened later."""

_EMPTY = """
TRUNCATE calendars, clients, client_phones, client_changes, mailings, mailing_counts, mailing_figures, expansions,
  batches, blocks, messages, attempts, journal, endpoints, rate_slots, day_quotas, log;
UPDATE buckets SET journal_seq = 0;
UPDATE client_change_seqs SET seq = 0;
"""


class Difference(AssertionError):
    """The model and Postgres do not agree."""


class Comparison:
    """Asks both databases the same, and raises Difference when they answer or end up differently."""

    def __init__(self, seed: int, pool: asyncpg.Pool) -> None:
        self.world = World(seed)
        self.model = Database(self.world, 500)
        self.model.limits.day = timedelta(days=1)  # as long as Postgres has it
        self.model.zones = Zones(timedelta(hours=12), LOOK_AGAIN)
        self._pool = pool
        self._storages = {
            name: dispatcher_storage(DispatcherDatabase(pool), replica_id) for name, replica_id in REPLICAS.items()
        }
        connections = Connections(pool)
        self._deletion = ClientDeletion(connections, Installation(BUCKETS, frozenset({"UTC"}), UUID(int=0)))
        self._retry = MailingRetry(connections, lambda: None)

    @property
    def now(self) -> datetime:
        return self.world.now_at

    async def begin(self) -> None:
        """Empty the tables of Postgres."""
        await self._pool.execute(_EMPTY)
        await self._pool.execute(f"ALTER SEQUENCE batch_no RESTART {_FIRST_NEW}")
        await self.pass_time(0.0)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in both."""
        self.world.now = round(self.world.now + seconds, 6)
        await self._pool.execute("UPDATE simulation.clock SET moment = $1", self.now)

    async def _read(self, what: str, model: T, postgres: Awaitable[T], plain: Callable[[T], Any] = lambda x: x) -> T:
        """Return the model's answer, having seen that Postgres gives the same one."""
        answer = await postgres
        self.world.tell(what, model)
        if plain(model) != plain(answer):
            raise self._difference(what, plain(model), plain(answer))
        return model

    async def _write(self, what: str, model: T, postgres: Awaitable[T], plain: Callable[[T], Any] = lambda x: x) -> T:
        """Do the same, and compare the rows that both have afterwards."""
        await self._read(what, model, postgres, plain)
        await self._renumber()
        await self._compare_rows(what)
        return model

    def _difference(self, what: str, model: object, postgres: object) -> Difference:
        trace = "\n".join(line[:300] for line in self.world.trace[-12:])
        return Difference(f"{trace}\n\n{what}\nmodel:    {model}\npostgres: {postgres}")

    # What callers of the API do.

    async def add_client(self, id_: int, tag: str, hours_ahead: int = 0, window: Window | None = None) -> None:
        client = Client(id_, str(7_000_000 + id_), tag, created_at=self.now, ahead=hours_ahead * 3600.0, day=86400.0)
        client.opens, client.length = window or (None, 0.0)
        self.model.clients[id_] = client
        await self._pool.execute(
            "INSERT INTO clients (bucket, id, phone, tag, timezone, created_at, window_start, window_length)"
            " VALUES ($1, $2, $3, $4, $5, $6, time '00:00' + $7::interval, $8)",
            *(client.bucket, id_, client.phone, tag, f"Etc/GMT{-hours_ahead:+d}" if hours_ahead else "UTC", self.now),
            *(window and timedelta(seconds=window[0]), window and timedelta(seconds=window[1])),
        )
        await self._changed(client)

    async def change_client(self, client: Client, tag: str, opted_out: bool) -> None:
        client.tag, client.opted_out = tag, opted_out
        change = "UPDATE clients SET tag = $3, opted_out = $4 WHERE bucket = $1 AND id = $2"
        await self._pool.execute(change, client.bucket, client.id, tag, opted_out)
        await self._changed(client)

    async def _changed(self, client: Client) -> None:
        self.model.changed(client)
        await self._pool.execute(
            "WITH s AS (UPDATE client_change_seqs SET seq = seq + 1 WHERE bucket = $1 RETURNING seq)"
            " INSERT INTO client_changes (bucket, seq, client_ids) SELECT $1, seq, $2 FROM s",
            *(client.bucket, [client.id]),
        )

    async def delete_client(self, client: Client) -> None:
        before = self.model.counts.total()
        cancelled = [m for m in self.model.messages.values() if m.status is Status.CANCELLED]
        delete_client(self.model, client)
        after = [m for m in self.model.messages.values() if m.status is Status.CANCELLED]
        assert self.model.counts.total() == before
        count = len(after) - len(cancelled)
        await self._write(f"delete client {client.id}", count, self._deletion.delete(client.id, ""))

    async def create_mailing(self, mailing: MailingRow) -> None:
        self.model.mailings[mailing.id] = mailing
        retry_policy = mailing.retry
        await self._pool.execute(
            "INSERT INTO mailings (id, text, filter, starts_at, ends_at, state, audience_mode, semantics, priority,"
            " max_rate, max_attempts, initial_backoff, max_backoff)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            *(mailing.id, mailing.text, orjson.dumps({"tags": [mailing.tag]}).decode()),
            *(mailing.starts_at, mailing.ends_at, mailing.state, mailing.audience, mailing.semantics),
            *(mailing.priority, mailing.max_rate, retry_policy.max_attempts),
            *(timedelta(seconds=retry_policy.initial_backoff), timedelta(seconds=retry_policy.max_backoff)),
        )
        await self._store_timetable(mailing)

    async def _store_timetable(self, mailing: MailingRow) -> None:
        timetable, calendar = mailing.timetable, f"of mailing {mailing.id}"
        hours = [
            SendingHours((), (EPOCH + timedelta(seconds=a)).time(), timedelta(seconds=b)) for a, b in timetable.hours
        ]
        days = [(EPOCH + timedelta(days=n)).date() for n in timetable.holidays]
        await self._pool.execute(
            "INSERT INTO calendars VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET days = excluded.days",
            calendar,
            days,
        )
        local_start, skip_after = timetable.local_start, timetable.skip_after
        await self._pool.execute(
            "UPDATE mailings SET sending_hours = $2, holidays = $3, local_start = $4, skip_after = $5 WHERE id = $1",
            *(mailing.id, orjson.dumps([one.as_json() for one in hours]).decode(), calendar if days else ""),
            None if local_start is None else (EPOCH + timedelta(seconds=local_start)).replace(tzinfo=None),
            None if skip_after is None else timedelta(seconds=skip_after),
        )

    async def change_timetable(self, mailing: MailingRow, timetable: Timetable) -> None:
        """Change all of it but for the local start, as UpdateMailing does."""
        self.model.change_timetable(mailing, timetable, self.now)
        await self._store_timetable(mailing)
        await self._pool.execute("UPDATE mailings SET version = version + 1 WHERE id = $1", mailing.id)
        for name in ("note_judged", "judge_anew"):
            await self._pool.execute(*_MAILINGS[name].bind(mailing_id=mailing.id))
        await self._compare_rows(f"timetable {timetable}")

    async def change_mailing(self, mailing: MailingRow, text: str, ends_at: datetime | None) -> None:
        mailing.text, mailing.ends_at = text, ends_at
        mailing.version += 1
        change = "UPDATE mailings SET text = $2, ends_at = $3, version = version + 1 WHERE id = $1"
        await self._pool.execute(change, mailing.id, text, ends_at)

    async def move_mailing(self, mailing: MailingRow, to: MailingState) -> None:
        mailing.state = to
        mailing.version += 1
        await self._pool.execute("UPDATE mailings SET state = $2, version = version + 1 WHERE id = $1", mailing.id, to)

    async def retry_mailing(self, mailing: MailingRow, statuses: Sequence[Status]) -> None:
        count = retry(self.model, mailing, statuses, self.now)
        await self._write(f"retry mailing {mailing.id}", count, self._retry.retry(mailing.id, statuses))

    # The planner's statements.

    @property
    def _plan(self) -> Any:
        return self._storages["replica 1"].plan

    async def poll(self) -> PollResult:
        return await self._read("poll", self.model.poll(self.now), self._plan.poll(), _nearly)

    async def start_due(self) -> list[int]:
        return await self._write("start_due", self.model.start_due(self.now), self._plan.start_due(), sorted)

    async def expandable(self, most: int) -> list[Expansion]:
        return await self._read("expandable", self.model.expandable(most, self.now), self._plan.expandable(most))

    async def expand(self, expansion: Expansion, bucket: int, size: int, limit: int) -> Step:
        step = self.model.expand(expansion, bucket, size, limit, self.now)
        what = f"expand {expansion} {bucket} {size} {limit}"
        return await self._write(what, step, self._plan.expand(expansion, bucket, size, limit))

    async def expanded(self) -> None:
        self.model.expanded(1.0, self.now)
        await self._write("expanded", None, self._plan.expanded(1.0))

    async def rechecks_due(self) -> list[Expansion]:
        model, postgres = self.model.rechecks_due(self.now), self._plan.rechecks_due()
        return await self._read("rechecks_due", model, postgres, lambda found: sorted(found, key=_mailing_id))

    async def expand_changes(self, expansion: Expansion, bucket: int, size: int, limit: int) -> Step:
        step = self.model.expand_changes(expansion, bucket, size, limit, self.now)
        what = f"expand_changes {expansion} {bucket} {size} {limit}"
        return await self._write(what, step, self._plan.expand_changes(expansion, bucket, size, limit))

    async def rechecked(self, ids: Sequence[int], found: Sequence[int]) -> None:
        self.model.rechecked(ids, found, 1.0, 8.0, self.now)
        await self._write(f"rechecked {ids} {found}", None, self._plan.rechecked(ids, found, 1.0, 8.0))

    async def expedite(self) -> None:
        self.model.expedite(self.now)
        await self._write("expedite", None, self._plan.expedite())

    async def complete(self, ids: Sequence[int] | None) -> list[int]:
        model = self.model.complete(ids, self.now)
        return await self._write(f"complete {ids}", model, self._plan.complete(ids), sorted)

    async def forget_changes(self) -> None:
        self.model.forget_changes(self.now)
        await self._write("forget_changes", None, self._plan.forget_changes())

    # The statements of claims and settlements.

    async def scan(self) -> list[OpenWork]:
        found = self._storages["replica 1"].queue.scan()
        return await self._read("scan", self.model.scan(self.now), found, lambda work: sorted(work, key=_place))

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        found = self._storages["replica 1"].queue.definitions(ids)
        return await self._read("definitions", self.model.definitions(ids, self.now), found)

    async def changed_clients(self, bucket: int, after: int, client_ids: Sequence[int]) -> list[int]:
        queue = self._storages["replica 1"].queue
        numbers = await self._read("change_numbers", self.model.change_numbers(), queue.change_numbers())
        until = numbers[bucket]
        found = queue.changed_clients(bucket, after, until, client_ids)
        what = f"changed_clients {bucket} {after} {until} {client_ids}"
        return await self._read(what, self.model.changed_clients(bucket, after, until, client_ids), found, sorted)

    async def claim(
        self, replica: str, mailing: Mailing, bucket: int, most: int, lease: float, render: Render | None
    ) -> list[ClaimedBatch]:
        model: list[ClaimedBatch] = []
        if self.model.is_claimable(mailing, self.now):
            claimed = self.model.claim(mailing, bucket, most, lease, replica, self.now)
            model = [self.model.fetch(mailing, bucket, batch, render, self.now) for batch in claimed]
        found = self._storages[replica].queue.claim(mailing, bucket, most, lease, render)
        what = f"{replica} claims {mailing.id} in {bucket} for {lease}"
        return await self._write(what, model, found, _batches_as_claimed)

    async def release_orphans(self, replica: str, known: Sequence[int]) -> None:
        self.model.release_orphans(replica, known, self.now)
        released = self._storages[replica].queue.release_orphans(known)
        await self._write(f"{replica} releases all but {known}", None, released)

    async def settle(self, replica: str, settlement: Settlement) -> bool:
        batch = settlement.batch
        what = f"{replica} settles {batch.no} {batch.fence} {list(settlement)} {settlement.done} {settlement.kept}"
        model = self.model.settle(settlement)
        return await self._write(what, model, self._storages[replica].queue.settle(settlement))

    # The statements about the endpoint and about rates.

    async def endpoint(self, replica: str, statement: str) -> None:
        """Make one of the statements about the breaker."""
        limits, health = self.model.limits, self._storages[replica].health
        pairs: dict[str, tuple[Any, Any]] = {
            "open": (
                lambda: limits.open_breaker(1.0, Suspension.CREDENTIALS, self.now),
                lambda: health.open_breaker("default", 1.0, "no", Suspension.CREDENTIALS),
            ),
            "pause": (lambda: limits.pause(1.5, self.now), lambda: health.pause("default", 1.5)),
            "begin": (lambda: limits.begin_probe(replica, 5.0, self.now), lambda: health.begin_probe("default", 5.0)),
            "close": (lambda: limits.close_breaker(replica, self.now), lambda: health.close_breaker("default")),
            "fail": (
                lambda: limits.fail_probe(replica, 1.0, 15.0, self.now),
                lambda: health.fail_probe("default", 1.0, 15.0, "no"),
            ),
            "ask": (lambda: limits.breakers(self.now), lambda: health.breakers(["default"])),
        }
        model, postgres = pairs[statement]
        await self._read(f"{replica}: breaker, {statement}", model(), postgres(), _nearly)

    async def reserve(self, requests: Sequence[SlotRequest]) -> tuple[float, dict[str, Slots]]:
        model = self.model.limits.reserve(requests, self.now)
        found = self._storages["replica 1"].rates.reserve(requests)
        return await self._read(f"reserve {requests}", model, found, _nearly)

    async def permit(self, request: QuotaRequest) -> QuotaGrant:
        model, found = self.model.limits.permit(request, self.now), self._storages["replica 1"].quotas.permit(request)
        return await self._write(
            f"permit {request}", model, found, lambda grant: (grant.granted, grant.left, round(grant.ends_in, 3))
        )

    async def give_back(self, back: QuotaReturn) -> None:
        day = (EPOCH + int(back.day) * self.model.limits.day).date().isoformat()
        self.model.limits.give_back([back])
        await self._storages["replica 1"].quotas.give_back([back._replace(day=day)])

    # The rows.

    async def _renumber(self) -> None:
        """Give new batches in Postgres the numbers that the model has for the same messages."""
        new = await self._pool.fetch("SELECT mailing_id, no, client_ids FROM batches WHERE no >= $1", _FIRST_NEW)
        numbers = {(b.mailing_id, *b.client_ids): b.no for b in self.model.batches.values()}
        for row in new:
            number = numbers.get((row["mailing_id"], *row["client_ids"]))
            if number is None:
                raise self._difference("a new batch", list(numbers), (row["mailing_id"], row["client_ids"]))
            await self._pool.execute("UPDATE batches SET no = $2 WHERE no = $1", row["no"], number)

    async def _compare_rows(self, what: str) -> None:
        for table, read, sql in _ROWS:
            model = read(self)
            rows = sorted(map(_row, await self._pool.fetch(sql, *([self.now] if "$1" in sql else []))))
            if sorted(model) != rows:
                differing = set(model) ^ set(rows)
                raise self._difference(
                    f"{table} after {what}", sorted(set(model) & differing), sorted(set(rows) & differing)
                )


def _batches_as_claimed(batches: list[ClaimedBatch]) -> list[ClaimedBatch]:
    """Return batches in their order, with spans as exact as the database counts them."""

    def exact(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds, 6)

    rounded = [replace(b.recipients, closes_in=tuple(map(exact, b.recipients.closes_in))) for b in batches]
    both = [replace(b, recipients=recipients) for b, recipients in zip(batches, rounded, strict=True)]
    return sorted(both, key=lambda batch: batch.no)


def _row(record: asyncpg.Record) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in record)


def _mailing_id(expansion: Expansion) -> int:
    return expansion.mailing_id


def _place(work: OpenWork) -> tuple[int, int]:
    return work.mailing_id, work.bucket


def _nearly(answer: Any) -> Any:
    """Return an answer whose floats equal those that differ by rounding only."""
    return pytest.approx(answer, abs=2e-6) if isinstance(answer, float) else _parts(answer)


def _parts(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: _nearly(value) for key, value in answer.items()}
    if isinstance(answer, tuple):
        return [_nearly(value) for value in answer]
    if isinstance(answer, PollResult):
        return [_nearly(getattr(answer, name)) for name in PollResult.__slots__]
    return answer


def _messages(comparison: Comparison) -> list[tuple[Any, ...]]:
    return [
        (m.mailing_id, m.client_id, m.due_at, m.status, m.reason, m.attempts, m.uncounted, m.maybe_sent)
        for m in comparison.model.messages.values()
        if m.place is Place.ROW
    ]


def _batches(comparison: Comparison) -> list[tuple[Any, ...]]:
    return [
        (
            *(b.bucket, b.mailing_id, b.no, tuple(b.client_ids), b.due_at, b.fence),
            *(max(b.lease_until, comparison.now), str(REPLICAS.get(b.holder or "", "")), b.maybe_sent),
            *(b.fresh, b.created_at if b.fresh else None),
        )
        for b in comparison.model.batches.values()
    ]


def _blocks(comparison: Comparison) -> list[tuple[Any, ...]]:
    return [
        (b.bucket, b.mailing_id, tuple(b.client_ids), b.due_at, b.created_at, b.status, b.reason)
        for b in comparison.model.blocks
    ]


def _mailings(comparison: Comparison) -> list[tuple[Any, ...]]:
    return [
        (m.id, m.state, m.version, m.recheck_at, m.starts_at, m.begins_at, m.expanded_at, m.judged_at)
        for m in comparison.model.mailings.values()
    ]


def _expansions(comparison: Comparison) -> list[tuple[Any, ...]]:
    expansions = comparison.model.expansions.values()
    return [
        (e.bucket, e.mailing_id, e.last_client_id, e.finished, e.change_seq, e.started_at, e.reached)
        for e in expansions
    ]


def _counts(comparison: Comparison) -> list[tuple[Any, ...]]:
    return [(mailing_id, status, n) for (mailing_id, status), n in comparison.model.counts.items() if n]


def _attempts(comparison: Comparison) -> list[tuple[Any, ...]]:
    return [(mailing_id, n) for mailing_id, n in comparison.model.attempts.items() if n]


_ROWS: list[tuple[str, Callable[[Comparison], list[tuple[Any, ...]]], str]] = [
    (
        "messages",
        _messages,
        "SELECT mailing_id, client_id, due_at, status, reason, attempts, coalesce(forgiven, 0),"
        " maybe_sent IS TRUE FROM messages",
    ),
    (
        "batches",
        _batches,
        "SELECT bucket, mailing_id, no, client_ids, due_at, fence, greatest(lease_until, $1),"
        " coalesce(holder::text, ''), doubtful, fresh, CASE WHEN fresh THEN created_at END FROM batches",
    ),
    (
        "blocks",
        _blocks,
        "SELECT bucket, mailing_id, client_ids, due_at, created_at, status, reason FROM blocks",
    ),
    (
        "mailings",
        _mailings,
        "SELECT id, state, version, nullif(recheck_at, 'infinity'), starts_at, begins_at, expanded_at, judged_at"
        " FROM mailings",
    ),
    (
        "expansions",
        _expansions,
        "SELECT bucket, mailing_id, last_client_id, finished, change_seq, started_at, reached FROM expansions",
    ),
    ("counts", _counts, "SELECT mailing_id, status, sum(n)::int FROM mailing_counts GROUP BY 1, 2 HAVING sum(n) <> 0"),
    (
        "attempts",
        _attempts,
        "SELECT mailing_id, sum(attempts)::int FROM mailing_counts GROUP BY 1 HAVING sum(attempts) <> 0",
    ),
]
