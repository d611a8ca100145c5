"""The model database answers as Postgres does, in random schedules of all statements the dispatcher makes.

A schedule that fails prints the end of what was asked, and both answers. More of them than in the
gate: `COMPARED_SCHEDULES=100:2000 pytest tests/simulation/test_comparison.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from dispatcher import retry_policy as policy
from dispatcher.model.batches import ClaimedBatch, Recipient
from dispatcher.model.endpoints import SlotRequest
from dispatcher.model.mailings import Expansion, Mailing, RetryPolicy
from dispatcher.model.outcomes import Failure, Outcome, Settled, Settlement
from dispatcher.model.quotas import DayLimit, QuotaRequest, QuotaReturn
from dispatcher.model.states import STATE_TRANSITIONS, AudienceMode, ErrorClass, MailingState, Reason, Semantics, Status
from dispatcher.model.templates import parse
from dispatcher.model.texts import TextRenderer
from server.config import Settings
from server.storage.pool import open_pool
from tests.simulation.comparison import REPLICAS, SET_UP, Comparison
from tests.simulation.rows import BUCKETS, MailingRow
from tests.simulation.timetables import Timetable
from tests.support.ledger import audit

FIRST, LAST = map(int, os.environ.get("COMPARED_SCHEDULES", "0:20").split(":"))
STEPS = 150
TAGS = ("red", "blue")
TEXTS = ("Hello", "Good bye")
OPENS = (0.0, 600.0, 5400.0, 7200.0, 82800.0)
LENGTHS = (600.0, 3600.0, 21600.0, 86400.0)
"""Seconds of the day at which windows and hours open, and for how long: not far from the beginning of the clock."""

RETRIED = (Status.FAILED, Status.EXPIRED, Status.UNKNOWN)
NEXT = {MailingState.PAUSED, MailingState.RUNNING, MailingState.CANCELLED}
"""The states to which callers move mailings."""


class Play:
    """Draws what happens, and lets both databases do it."""

    def __init__(self, comparison: Comparison) -> None:
        self._both = comparison
        self._world, self._model, self._random = comparison.world, comparison.model, comparison.world.random
        self._last_client = 1
        self._expansions: list[Expansion] = []
        self._rechecks: list[Expansion] = []
        self._definitions: list[Mailing] = []
        self._claims: list[tuple[str, ClaimedBatch]] = []
        self._settled: dict[int, set[int]] = {}
        self._last_settlement: dict[int, Settlement] = {}
        self._acts: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (10, self._pass_time),
            (1, self._pass_hours),
            (4, self._add_client),
            (2, self._change_client),
            (1, self._delete_client),
            (3, self._create_mailing),
            (2, self._change_mailing),
            (2, self._change_timetable),
            (2, self._move_mailing),
            (2, self._retry),
            (2, comparison.poll),
            (3, comparison.start_due),
            (3, self._expandable),
            (12, self._expand),
            (4, comparison.expanded),
            (3, self._rechecks_due),
            (4, self._expand_changes),
            (2, self._rechecked),
            (2, comparison.expedite),
            (2, self._complete),
            (1, comparison.forget_changes),
            (2, comparison.scan),
            (4, self._look_up),
            (2, self._look_for_changes),
            (14, self._claim),
            (1, self._release_orphans),
            (18, self._settle),
            (4, self._endpoint),
            (2, self._reserve),
            (2, self._permit),
        ]

    async def run(self) -> None:
        """Play."""
        for _ in range(12):
            await self._add_client()
        for _ in range(3):
            await self._create_mailing()
        await self._both.start_due()
        for _ in range(6):
            await self._expand()
        for act in self._random.choices([a for _, a in self._acts], [weight for weight, _ in self._acts], k=STEPS):
            await act()

    async def _pass_time(self) -> None:
        await self._both.pass_time(self._world.delay(0.001, 4.0))

    async def _pass_hours(self) -> None:
        await self._both.pass_time(self._random.choice([600.0, 3599.5, 7200.0]))

    async def _add_client(self) -> None:
        self._last_client += self._random.randint(1, 3)
        window = (self._random.choice(OPENS), self._random.choice(LENGTHS)) if self._world.chance(0.4) else None
        await self._both.add_client(
            self._last_client, self._random.choice(TAGS), self._random.choice([0, 0, 3, -2]), window
        )

    async def _change_client(self) -> None:
        if clients := list(self._model.clients.values()):
            client = self._random.choice(clients)
            opted_out = client.opted_out or self._world.chance(0.5)
            await self._both.change_client(client, self._random.choice(TAGS), opted_out)

    async def _delete_client(self) -> None:
        if clients := list(self._model.clients.values()):
            await self._both.delete_client(self._random.choice(clients))

    async def _create_mailing(self) -> None:
        random, now = self._random, self._both.now
        starts_at = now + timedelta(seconds=random.choice([0.0, 0.0, 2.0]))
        length = random.choice([None, None, self._world.delay(5.0, 60.0)])
        await self._both.create_mailing(
            MailingRow(
                id=len(self._model.mailings) + 1,
                text=random.choice(TEXTS),
                tag=random.choice(TAGS),
                starts_at=starts_at,
                ends_at=None if length is None else starts_at + timedelta(seconds=round(length, 6)),
                state=MailingState.SCHEDULED,
                audience=random.choice(list(AudienceMode)),
                semantics=random.choice(list(Semantics)),
                priority=random.choice([0, 0, 1]),
                retry=RetryPolicy(random.randint(1, 5), 1.0, 4.0),
                max_rate=random.choice([0.0, 1.0, 20.0]),
                timetable=self._timetable(local_start=True) if self._world.chance(0.5) else Timetable(),
            )
        )

    def _timetable(self, local_start: bool = False) -> Timetable:
        random, seconds = self._random, round(self._world.now)
        hours = [(random.choice(OPENS), random.choice(LENGTHS)) for _ in range(random.choice([0, 1, 1, 2]))]
        return Timetable(
            tuple(hours),
            frozenset(random.sample([-1, 0, 1], random.choice([0, 0, 1, 2]))),
            seconds + random.choice([-3600.0, 60.0, 7200.0]) if local_start and self._world.chance(0.3) else None,
            random.choice([None, None, 60.0, 600.0, 3600.0]),
        )

    async def _change_timetable(self) -> None:
        if mailing := self._mailing(MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
            await self._both.change_timetable(
                mailing, replace(self._timetable(), local_start=mailing.timetable.local_start)
            )

    def _mailing(self, *states: MailingState) -> MailingRow | None:
        found = [mailing for mailing in self._model.mailings.values() if mailing.state in (states or MailingState)]
        return self._random.choice(found) if found else None

    async def _change_mailing(self) -> None:
        if mailing := self._mailing(MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
            ends_at = max(self._both.now, mailing.starts_at) + timedelta(seconds=round(self._world.delay(0.1, 40.0), 6))
            text = self._random.choice(TEXTS)
            await self._both.change_mailing(mailing, text, self._random.choice([mailing.ends_at, ends_at]))

    async def _move_mailing(self) -> None:
        if mailing := self._mailing(MailingState.RUNNING, MailingState.PAUSED):
            after = sorted(STATE_TRANSITIONS[mailing.state] & NEXT)
            await self._both.move_mailing(mailing, self._random.choice(after))

    async def _retry(self) -> None:
        mailing = self._mailing(MailingState.RUNNING, MailingState.PAUSED, MailingState.COMPLETED)
        if mailing is not None and not mailing.is_over(self._both.now):
            await self._both.retry_mailing(mailing, RETRIED)

    # The planner's statements. What was learned earlier may be stale by the time it is used.

    async def _expandable(self) -> None:
        self._expansions += await self._both.expandable(self._random.choice([1, 2, 48]))

    async def _expand(self) -> None:
        if not self._expansions or self._world.chance(0.3):
            await self._expandable()
        if self._expansions:
            expansion = self._random.choice(self._expansions[-4:])
            bucket = self._random.choice(sorted(expansion.positions))
            step = await self._both.expand(expansion, bucket, self._random.randint(1, 4), self._random.randint(1, 6))
            if self._world.chance(0.7):
                expansion.positions[bucket] = step.position

    async def _rechecks_due(self) -> None:
        self._rechecks += await self._both.rechecks_due()

    async def _expand_changes(self) -> None:
        await self._rechecks_due()
        if found := [one for one in self._rechecks if one.positions][-3:]:
            expansion = self._random.choice(found)
            bucket = self._random.choice(sorted(expansion.positions))
            await self._both.expand_changes(expansion, bucket, self._random.randint(1, 4), self._random.randint(1, 3))

    async def _rechecked(self) -> None:
        if ids := sorted({one.mailing_id for one in self._rechecks}):
            await self._both.rechecked(ids, [one for one in ids if self._world.chance(0.3)])

    async def _complete(self) -> None:
        await self._both.complete(self._random.choice([None, list(self._model.mailings)[:2]]))

    # Claims and settlements.

    async def _look_up(self) -> None:
        found = await self._both.definitions([*self._model.mailings, 999])
        self._definitions = [*self._definitions[-2:], *found.values()]

    async def _look_for_changes(self) -> None:
        bucket = self._random.randrange(BUCKETS)
        after = self._random.randint(0, self._model.change_seq[bucket])
        ids = [i for i, client in self._model.clients.items() if client.bucket == bucket]
        await self._both.changed_clients(bucket, after, [*ids[-5:], 999])

    async def _claim(self) -> None:
        """Claim what is open, by definitions of now or of some time ago."""
        if self._world.chance(0.8):
            await self._look_up()
        open_work = self._model.scan(self._both.now)
        if not self._definitions or not open_work:
            return
        random, work = self._random, self._random.choice(open_work)
        known = [one for one in self._definitions if one.id == work.mailing_id] or self._definitions
        replica, mailing, bucket = random.choice(list(REPLICAS)), random.choice(known[-2:]), work.bucket
        dear, nobody = parse("Dear {phone}"), parse("{attributes.name}")
        render = random.choice([None, TextRenderer(dear, 128), TextRenderer(nobody, 128)])
        lease = round(self._world.delay(0.0, 12.0), 6)
        batches = await self._both.claim(replica, mailing, bucket, random.randint(1, 2), lease, render)
        self._claims += [(replica, batch) for batch in batches]

    async def _release_orphans(self) -> None:
        known = [no for no in self._model.batches if self._world.chance(0.5)]
        await self._both.release_orphans(self._random.choice(list(REPLICAS)), known)

    async def _settle(self) -> None:
        """Settle a claim of now or of long ago: as far as it goes, to its end, or as it was settled before."""
        if not self._claims:
            return
        index = self._random.randrange(max(0, len(self._claims) - 5), len(self._claims))
        replica, batch = self._claims[index]
        if index in self._last_settlement and self._world.chance(0.3):
            await self._both.settle(replica, self._last_settlement[index])
            return
        saved = self._settled.setdefault(index, set())
        left = [one for one in batch.recipients if one.client_id not in saved]
        done = self._world.chance(0.6)
        begun = [one for one in left if self._world.chance(0.7)]
        settled = [self._outcome(one, done) for one in begun]
        kept = [one.client_id for one in left if one not in begun] if done else []
        saved |= {client for client, _, _ in settled}
        settlement = self._last_settlement[index] = Settlement.of(batch, "default", settled, done, kept)
        await self._both.settle(replica, settlement)

    def _outcome(self, recipient: Recipient, done: bool) -> Settled:
        now = self._both.now
        failure = Failure(now, ErrorClass.SERVER, "no")
        counted = self._random.choice([0, 0, 1])
        outcomes = [
            Outcome(Status.DELIVERED, Reason.NONE, 1, 200, 0, 5, None, None),
            Outcome(Status.DELIVERED, Reason.NONE, 1, 200, 0, 9, None, None),
            Outcome(Status.FAILED, Reason.REFUSED, 1, 404, None, 7, None, failure),
            Outcome(Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, 1, None, None, 9, None, failure, 0, True),
            policy.unsent(Status.EXPIRED, Reason.MAILING_ENDED),
            policy.unsent(Status.SKIPPED, Reason.OPTED_OUT),
        ]
        if done:  # before that a message that stays pending belongs to the batch
            due_at = now + timedelta(seconds=self._random.choice([0.5, 2.0]))
            doubt = self._world.chance(0.5)
            outcomes += [
                policy.put_off(due_at),
                Outcome(Status.PENDING, Reason.RETRYING, 1, 503, None, 3, due_at, failure, counted, doubt),
            ] * 2
        return recipient.client_id, recipient.attempts, self._random.choice(outcomes)

    # The endpoint and its rate.

    async def _endpoint(self) -> None:
        statement = self._random.choice(["open", "begin", "begin", "close", "fail", "pause", "ask"])
        await self._both.endpoint(self._random.choice(list(REPLICAS)), statement)

    async def _reserve(self) -> None:
        requests = [
            SlotRequest("a", 20.0, self._random.randint(1, 8)),
            SlotRequest("b", 2.0, self._random.randint(1, 3)),
        ]
        await self._both.reserve(requests[: self._random.randint(1, 2)])

    async def _permit(self) -> None:
        limit = DayLimit(self._random.choice([3, 30]))
        grant = await self._both.permit(QuotaRequest("a", limit, self._random.randint(1, 8)))
        if grant.granted and self._world.chance(0.3):
            await self._both.give_back(QuotaReturn("a", grant.day, self._random.randint(1, grant.granted)))


@pytest.fixture
async def clocked_pool(database_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    """Yield one connection to a database whose time the test turns."""
    connection = await asyncpg.connect(database_dsn)
    await connection.execute(SET_UP)
    await connection.close()
    logging.disable(logging.CRITICAL)
    async with open_pool(database_dsn, Settings(), 1) as pool:
        yield pool
    logging.disable(logging.NOTSET)


async def test_the_model_and_postgres_give_the_same_answers(clocked_pool: asyncpg.Pool) -> None:
    for seed in range(FIRST, LAST):
        comparison = Comparison(seed, clocked_pool)
        await comparison.begin()
        await Play(comparison).run()
        assert await audit(clocked_pool) == [], f"seed {seed}"
