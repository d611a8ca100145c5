"""Gets the moments at which requests with a rate may start, for all gates of a replica.

Asks the database as long as messages wait for a gate, for all gates in one statement, and lets
the lanes start workers when a moment comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator

from dispatcher.endpoint_workers import Lane
from dispatcher.model.records import SlotRequest
from dispatcher.ports import Clock, Ledger, LedgerUnavailable
from dispatcher.rate_limiter import DatabaseTime, Gate

log = logging.getLogger(__name__)

TICK = 0.003
"""Seconds between two looks at the gates at the least: what came due meanwhile starts together."""

_LONGEST_WAIT = 1.0
_AWAY_PAUSE = 0.5


class Supply:
    """Serves the gates of `lanes`."""

    def __init__(self, ledger: Ledger, clock: Clock, lanes: Collection[Lane]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lanes = lanes
        self._time = DatabaseTime()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Says that messages wait for a gate."""
        self._woken.set()

    async def run(self) -> None:
        """Serves until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while any(demand for _, demand in self._gates()):
                try:
                    await self._ask()
                except LedgerUnavailable as error:
                    log.warning("rates wait for the database: %s", error)
                    await self._clock.sleep(_AWAY_PAUSE)
                for lane in self._lanes:
                    lane.staff()
                await self._clock.wait(self._woken, self._pause())
                self._woken.clear()

    def _gates(self) -> Iterator[tuple[Gate, int]]:
        """Every gate with how many messages wait for it."""
        for lane in self._lanes:
            if lane.gate is not None:
                yield lane.gate, lane.waiting
            for queue in lane.turns.queues.values():
                if queue.gate is not None:
                    yield queue.gate, queue.waiting

    async def _ask(self) -> None:
        asked = self._clock.monotonic()
        wishes: dict[str, tuple[Gate, SlotRequest]] = {}
        for gate, demand in self._gates():
            if (wish := gate.wish(asked, demand)) is not None:
                wishes[gate.key] = gate, wish
        if not wishes:
            return
        read_at, given = await self._ledger.reserve([wish for _, wish in wishes.values()])
        self._time.learn(asked, self._clock.monotonic(), read_at)
        for key, slots in given.items():
            wishes[key][0].add(self._time.local(slots.since), slots)

    def _pause(self) -> float:
        now = self._clock.monotonic()
        next_at = min((gate.next_at(now, demand) for gate, demand in self._gates() if demand), default=now)
        return max(TICK, min(next_at - now, _LONGEST_WAIT))
