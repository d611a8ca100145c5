"""Of which mailings the claimer hears while the planner takes in clients."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from dispatcher import retry_policy as policy
from dispatcher.claimer import Claimer
from dispatcher.model.mailings import AudienceFilter, Expansion, PollResult, Step
from dispatcher.model.settings import DispatchSettings
from dispatcher.model.states import Semantics
from dispatcher.planner import Planner
from dispatcher.poll_backoff import PollBackoff
from dispatcher.tasks import cancel
from tests.unit.dispatcher.batches import ASKED, MAILING


class Clock:
    """A clock that stands still, and notes that a round is over; no wait ends."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    def monotonic(self) -> float:
        return ASKED

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing fails here")

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        self.waits.set()
        await asyncio.Event().wait()


class Noted(Claimer):
    """A claimer that notes of which mailings it hears."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def wake(self) -> None:
        pass

    def added(self, mailing_id: int) -> None:
        self.heard.append(mailing_id)


class Plan:
    """One mailing that takes in clients and has so many open batches; a step takes in none and is the last."""

    def __init__(self, open_batches: int) -> None:
        self.steps = 0
        self._open_batches = open_batches

    async def poll(self) -> PollResult:
        return PollResult(False, True, False, False, True, False, 3.0)

    async def start_due(self) -> list[int]:
        raise AssertionError("nothing starts here")

    async def expandable(self, most: int) -> list[Expansion]:
        if self.steps:
            return []
        known = (MAILING, 1, AudienceFilter(), Semantics.AT_LEAST_ONCE, 0.0, {0: 0})
        return [Expansion(*known, open_batches=self._open_batches, over=False)]

    async def expand(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        self.steps += 1
        return Step(moved=True, seen=0, inserted=0, position=0, finished=True)

    async def expanded(self, recheck_min: float) -> None:
        pass

    async def rechecks_due(self) -> list[Expansion]:
        raise AssertionError("no mailing is open here")

    async def expand_changes(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        raise AssertionError("no mailing is open here")

    async def rechecked(self, ids: Sequence[int], found: Sequence[int], shortest: float, longest: float) -> None:
        raise AssertionError("no mailing is open here")

    async def expedite(self) -> None:
        pass

    async def complete(self, ids: Sequence[int] | None = None) -> list[int]:
        return []

    async def forget_changes(self) -> None:
        pass


@pytest.mark.parametrize(
    ("open_batches", "steps", "heard"),
    [(0, 1, []), (1, 1, [MAILING]), (policy.OPEN_BATCHES, 0, [MAILING])],
    ids=["nothing yet", "another replica began", "another replica is ahead of sending"],
)
async def test_the_claimer_hears_of_what_another_replica_made(open_batches: int, steps: int, heard: list[int]) -> None:
    """Fails when the claimer hears of its own replica's batches alone, and waits for the next full round."""
    clock, claimer, plan, settings = Clock(), Noted(), Plan(open_batches), DispatchSettings()
    planner = Planner(plan, PollBackoff(clock, 0.0, 5.0), settings, clock, Random(1), claimer)
    planning = asyncio.create_task(planner.run())
    async with asyncio.timeout(10):
        await clock.waits.wait()
    await cancel(planning)
    assert (plan.steps, claimer.heard) == (steps, heard)
