"""The model database as one replica reaches it: late, or not at all.

Every statement begins when the question has arrived and takes effect when it commits; the
answer comes later still. A question may be lost, and so may an answer whose statement has
taken effect. A statement under way commits although its caller is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from dispatcher.model.batches import ClaimedBatch, OpenWork
from dispatcher.model.endpoints import EndpointState, SlotRequest, Slots
from dispatcher.model.mailings import Expansion, Mailing, PollResult, Step
from dispatcher.model.outcomes import Settlement
from dispatcher.model.quotas import QuotaGrant, QuotaRequest, QuotaReturn
from dispatcher.model.states import Suspension
from dispatcher.ports import Render, Storage, StorageUnavailable
from tests.simulation.database import Database
from tests.simulation.promises import Promises
from tests.simulation.world import World

T = TypeVar("T")


@dataclass
class Network:
    """How a database is reached: seconds and probabilities.

    `away_until` is the end of an outage, for all processes or for the one that `only` names.
    """

    least: float
    most: float
    slow: float
    lost: float
    away_until: float = 0.0
    only: str | None = None
    patience: float = 3.0

    def is_away(self, now: float, process: str) -> bool:
        """Return whether nothing of a process gets through."""
        return now < self.away_until and self.only in (None, process)


class RemoteDatabase:
    """Implements the ports of storage for the process called `name`, which lives on `loop`."""

    def __init__(
        self,
        world: World,
        database: Database,
        network: Network,
        promises: Promises,
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        self._world = world
        self._database = database
        self._limits = database.limits
        self._network = network
        self._promises = promises
        self._loop = loop
        self._name = name
        self.ports = Storage(plan=self, queue=self, health=self, rates=self, quotas=self)

    def _ask(self, statement: Callable[[datetime], T], snapshot: Callable[[], bool] | None = None) -> asyncio.Future[T]:
        """Send a statement; where `snapshot` says no when it begins, it finds nothing and is not run."""
        world, network = self._world, self._network
        answer: asyncio.Future[T] = self._loop.create_future()
        there = world.delay(network.least, network.most)
        if world.chance(network.slow):
            there += world.delay(0.05, network.patience)
        lost = world.random.random()

        def fail() -> None:
            if not answer.done():
                answer.set_exception(StorageUnavailable("the model database is away"))

        def begin() -> None:
            if network.is_away(world.now, self._name) or lost < network.lost:
                # Refused at once, or never heard of again.
                world.after(0.0 if world.chance(0.5) else network.patience, fail)
                return
            began_at = world.now_at
            holds = snapshot is None or snapshot()
            world.after(world.delay(0.0, network.most), lambda: commit(began_at, holds))

        def commit(began_at: datetime, holds: bool) -> None:
            result = statement(began_at) if holds else None
            if lost < 2 * network.lost:
                world.after(world.delay(0.0, network.patience), fail)
            else:
                world.after(world.delay(network.least, network.most), lambda: reply(result))

        def reply(result: T | None) -> None:
            if not answer.done():
                answer.set_result(result)  # type: ignore[arg-type]

        world.after(there, begin)
        return answer

    async def poll(self) -> PollResult:
        return await self._ask(self._database.poll)

    async def start_due(self) -> list[int]:
        return await self._ask(self._database.start_due)

    async def expandable(self, most: int) -> list[Expansion]:
        return await self._ask(lambda now: self._database.expandable(most, now))

    async def expand(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        return await self._ask(lambda now: self._database.expand(expansion, bucket, batch_size, limit, now))

    async def expanded(self, recheck_min: float) -> None:
        await self._ask(lambda now: self._database.expanded(recheck_min, now))

    async def rechecks_due(self) -> list[Expansion]:
        return await self._ask(self._database.rechecks_due)

    async def expand_changes(self, expansion: Expansion, bucket: int, batch_size: int, limit: int) -> Step:
        return await self._ask(lambda now: self._database.expand_changes(expansion, bucket, batch_size, limit, now))

    async def rechecked(self, ids: Sequence[int], found: Sequence[int], shortest: float, longest: float) -> None:
        await self._ask(lambda now: self._database.rechecked(ids, found, shortest, longest, now))

    async def expedite(self) -> None:
        await self._ask(self._database.expedite)

    async def complete(self, ids: Sequence[int] | None = None) -> list[int]:
        return await self._ask(lambda now: self._database.complete(ids, now))

    async def forget_changes(self) -> None:
        await self._ask(self._database.forget_changes)

    async def scan(self) -> list[OpenWork]:
        return await self._ask(self._database.scan)

    async def definitions(self, ids: Sequence[int]) -> dict[int, Mailing]:
        return await self._ask(lambda now: self._database.definitions(ids, now))

    async def change_numbers(self) -> dict[int, int]:
        return await self._ask(lambda now: self._database.change_numbers())

    async def changed_clients(self, bucket: int, after: int, until: int, client_ids: Sequence[int]) -> list[int]:
        return await self._ask(lambda now: self._database.changed_clients(bucket, after, until, client_ids))

    async def claim(
        self,
        mailing: Mailing,
        bucket: int,
        most: int,
        lease: float,
        render: Render | None,
        held: Sequence[int] = (),
    ) -> list[ClaimedBatch]:
        database, name = self._database, self._name

        def claim(now: datetime) -> list[ClaimedBatch]:
            claimed = database.claim(mailing, bucket, most, lease, name, now, held)
            for batch in claimed:
                self._world.tell(name, "claims", batch.no, "fence", batch.fence, batch.client_ids)
            return [database.fetch(mailing, bucket, batch, render, now) for batch in claimed]

        return await self._ask(claim, lambda: database.is_claimable(mailing, self._world.now_at)) or []

    async def release_orphans(self, known: Sequence[int]) -> None:
        await self._ask(lambda now: self._database.release_orphans(self._name, known, now))

    async def settle(self, settlement: Settlement) -> bool:
        def settle(now: datetime) -> bool:
            self._promises.settling(self._name, settlement)
            held = self._database.settle(settlement)
            self._promises.settled(settlement.batch, settlement.done and held)
            return held

        return await self._ask(settle)

    async def breakers(self, endpoints: Sequence[str]) -> dict[str, EndpointState]:
        return await self._ask(self._limits.breakers)

    async def open_breaker(self, endpoint: str, probe_in: float, error: str, suspension: Suspension) -> bool:
        others_deliver = self._world.chance(0.3)
        return await self._ask(
            lambda now: self._limits.open_breaker(probe_in, suspension, now, others_deliver=others_deliver)
        )

    async def pause(self, endpoint: str, seconds: float) -> None:
        await self._ask(lambda now: self._limits.pause(seconds, now))

    async def begin_probe(self, endpoint: str, longest: float) -> bool:
        return await self._ask(lambda now: self._limits.begin_probe(self._name, longest, now))

    async def close_breaker(self, endpoint: str) -> None:
        await self._ask(lambda now: self._limits.close_breaker(self._name, now))

    async def fail_probe(self, endpoint: str, shortest: float, longest: float, error: str) -> float:
        return await self._ask(lambda now: self._limits.fail_probe(self._name, shortest, longest, now))

    async def permit(self, request: QuotaRequest) -> QuotaGrant:
        return await self._ask(lambda now: self._limits.permit(request, now))

    async def give_back(self, returns: Sequence[QuotaReturn]) -> None:
        await self._ask(lambda _: self._limits.give_back(returns))

    async def reserve(self, requests: Sequence[SlotRequest]) -> tuple[float, dict[str, Slots]]:
        return await self._ask(lambda now: self._limits.reserve(requests, now))
