"""Puts the dispatcher together: planner, claimer, lanes, settler, and how they stop.

claim → send → settle; the planner feeds the front, the pacer keeps the idle quiet. All
replicas are equal: any number of dispatchers share one database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from dispatcher.breaker_sync import Guard
from dispatcher.claimer import Claimer
from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.endpoint_workers import Lane
from dispatcher.heartbeat import Beat
from dispatcher.leases import Book, Lease
from dispatcher.model.records import DispatchSettings, Endpoint, Tuning
from dispatcher.planner import Planner
from dispatcher.poll_backoff import LoopClock, Pacer
from dispatcher.ports import Clock, Ledger, LedgerUnavailable, Replicas, Sender, Settled
from dispatcher.rate_slots import Supply
from dispatcher.replica_status import Vitals
from dispatcher.settler import Settler

log = logging.getLogger(__name__)

RESTART_PAUSE = 1.0
"""Seconds before a part that failed begins anew."""

SETTLE_MARGIN = 5.0
"""Seconds between the end of the last request of a lease and the end of the lease."""


class Dispatcher:
    """Delivers what the ledger says, until stopped.

    `endpoints` maps a mailing's endpoint name ('' is the default one) to where and how it is
    reached. A mailing whose endpoint is not among them waits. Without `replicas` nobody sees
    this one, and it keeps the settings it was started with.
    """

    def __init__(
        self,
        ledger: Ledger,
        endpoints: Mapping[str, tuple[Endpoint, Sender]],
        settings: DispatchSettings,
        clock: Clock | None = None,
        random: Random | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._clock = clock or LoopClock()
        self._random = random or Random()  # noqa: S311 - jitter and fairness, not secrets
        self._book = Book()
        self._ledger = ledger
        self.pacer = Pacer(self._clock, settings.poll_min, settings.poll_max)
        longest = max((endpoint.total_timeout for endpoint, _ in endpoints.values()), default=0.0)
        lease = max(settings.lease, 3 * longest + SETTLE_MARGIN)
        self._settler = Settler(ledger, self._clock, self._book, self._closed, self._settled)
        self._guard = Guard(ledger, self._clock, self._book, self._settler.put)
        lanes = {
            endpoint.name: self._lane(endpoint, sender, settings.max_concurrency)
            for endpoint, sender in endpoints.values()
        }
        self._lanes = {name: lanes[endpoint.name] for name, (endpoint, _) in endpoints.items()}
        self._supply = Supply(ledger, self._clock, list(lanes.values()))
        self._claimer = Claimer(
            ledger=ledger,
            lanes=self._lanes,
            guard=self._guard,
            book=self._book,
            lease=lease,
            sending=lease - longest - SETTLE_MARGIN,
            clock=self._clock,
            random=self._random,
            finished=self._settler.put,
        )
        self._planner = Planner(ledger, self.pacer, settings, self._clock, self._random, self._claimer.wake)
        self._settings = settings
        self._bounds = [(lanes[endpoint.name].limit, endpoint.max_concurrency) for endpoint, _ in endpoints.values()]
        self._vitals = Vitals(self._clock, self.pacer, self._book, self._lanes)
        self._beat = Beat(replicas, self._clock, self._vitals, self._tune) if replicas else None
        self._grace = 15.0
        self._stopping = asyncio.Event()

    def _lane(self, endpoint: Endpoint, sender: Sender, most: int) -> Lane:
        limit = ConcurrencyLimit(min(most, endpoint.max_concurrency))
        return Lane(endpoint, sender, self._clock, limit, self._random, keeper=self)

    @property
    def lanes(self) -> list[Lane]:
        """The ways to the endpoints, one each."""
        return list(dict.fromkeys(self._lanes.values()))

    @property
    def leases(self) -> int:
        """How many batches it holds."""
        return len(self._book.leases)

    # What the lanes report: see `sender.Keeper`.

    def finished(self, lease: Lease) -> None:
        """A lease can be settled."""
        self._settler.put(lease)

    def hungry(self) -> None:
        """A lane has room."""
        self._claimer.wake()

    def rated(self) -> None:
        """Messages wait for what their rates allow."""
        self._supply.wake()

    def tripped(self, lane: Lane) -> None:
        """A breaker opened."""
        self._guard.tripped(lane)
        self._claimer.wake()

    def probed(self, lane: Lane, recovered: bool) -> None:
        """A probe ended."""
        self._guard.probed(lane, recovered)
        self._claimer.wake()

    def hint(self) -> None:
        """Says that something changed: it is looked at now instead of at the next poll."""
        self.pacer.hint()
        if self._beat:
            self._beat.hint()

    def _tune(self, tuning: Tuning) -> None:
        """Takes over what is set for all replicas."""
        settings = self._planner.settings = tuning.of(self._settings)
        self.pacer.bound(settings.poll_min, settings.poll_max)
        for limit, most in self._bounds:
            limit.bound(min(settings.max_concurrency, most))

    def _settled(self, endpoint: str, settled: list[Settled]) -> None:
        self._vitals.note(endpoint, settled)
        if self._beat:
            self._beat.work()

    def _closed(self, lease: Lease, held: bool) -> None:
        self._claimer.wake()
        if lease.mailing.id not in self._book.by_mailing:
            self._planner.drained(lease.mailing.id)

    async def run(self) -> None:
        """Dispatches until `stop` is called or the task is cancelled."""
        settling = asyncio.create_task(self._settler.run())
        taking = [
            asyncio.create_task(self._persist(work))
            for work in (self._planner.run, self._claimer.run, self._claimer.watch, self._guard.run, self._supply.run)
        ]
        beating = asyncio.create_task(self._persist(self._beat.run)) if self._beat else None
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([settling, stopping, *taking], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            await _end(stopping, *taking)
            await self._drain()
            await _end(settling, *([beating] if beating else []))
            if self._beat:
                await self._beat.leave()
            for lane in set(self._lanes.values()):
                await lane.close()

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begins a loop anew when a defect ended it: one mailing must not stop the others."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("a part of the dispatcher failed and begins anew")
                await self._clock.sleep(RESTART_PAUSE)

    async def _drain(self) -> None:
        """Releases what nobody has begun to send, and waits for the rest to be settled."""
        for lease in self._book.leases:
            if lease.release(lease.mailing):
                self._settler.put(lease)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                while self._book.leases:
                    await self._book.changed()
        with contextlib.suppress(LedgerUnavailable):
            await self._ledger.release_orphans([lease.batch.no for lease in self._book.leases])
        if self._book.leases:
            log.warning("%d batches were not settled in time: their leases run out", len(self._book.leases))

    async def stop(self, grace: float = 15.0) -> None:
        """Asks `run` to stop claiming, settle what is in flight within `grace` seconds, and end."""
        self._grace = grace
        self._stopping.set()


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
