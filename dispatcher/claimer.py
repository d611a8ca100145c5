"""Claims open work: scans without locks, chooses fairly, leases batch by batch.

The highest priority comes first, but for every tenth claim, so that nobody starves; among
mailings of one priority the one of which the fewest batches are held here, so a huge mailing
never holds up a small one. A batch is claimed only when its endpoint's pool has room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import NamedTuple

from dispatcher.breaker_sync import BreakerSync
from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.fair_queue import EQUAL_TURN
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.records import Mailing, OpenWork
from dispatcher.model.states import MailingState
from dispatcher.model.templates import TemplateError, parse
from dispatcher.ports import Clock, Ledger, Render, StorageUnavailable

log = logging.getLogger(__name__)

SCAN_AGE = 0.25
"""Seconds after which a scan is too old to choose from."""

REFRESH_INTERVAL = 0.25
"""Seconds between two looks at the definitions of the mailings at work."""

CLAIMS_AT_ONCE = 3
"""Claims under way at the same time: one takes several turns of a busy event loop."""

MOST_UNSETTLED = 64
"""Batches that wait to be settled: more hold back further claims."""


class Claimer:
    """Leases batches and hands them to their pools.

    `finished` is called with a lease that needs no sending at all.
    """

    def __init__(
        self,
        ledger: Ledger,
        pools: Mapping[str, EndpointWorkers],
        breaker_sync: BreakerSync,
        registry: LeaseRegistry,
        lease: float,
        sending: float,
        clock: Clock,
        random: Random,
        finished: Callable[[Lease], None],
    ) -> None:
        """`lease` is in seconds; `sending` is how many of them its requests may still start."""
        self._ledger = ledger
        self._pools = pools
        self._all_pools = set(pools.values())
        self._breaker_sync = breaker_sync
        self._registry = registry
        self._lease = lease
        self._clock = clock
        self._random = random
        self._finished = finished
        self._sending = sending
        self._woken = asyncio.Event()
        self._jobs: dict[int, _Job] = {}
        self._stale: set[int] = set()
        self._orphans = False
        self._work: list[OpenWork] = []
        self._open: dict[tuple[int, int], int] = {}
        self._scanned = -SCAN_AGE

    def wake(self) -> None:
        """Note that there may be open work, or room for it."""
        self._woken.set()

    async def run(self) -> None:
        """Claim until cancelled."""
        while True:
            await self._rest()
            self._woken.clear()
            try:
                await self._claim_all()
            except StorageUnavailable as error:
                log.warning("claiming waits for the database: %s", error)
                # The claim may have succeeded although its answer was lost.
                self._orphans = True
                await self._clock.sleep(1.0)
                self.wake()

    async def _rest(self) -> None:
        """Return when there may be something to claim, or when an endpoint that is down may be tried."""
        probe_at = min((pool.breaker.probe_at for pool in self._all_pools if self._waits_for(pool)), default=None)
        if probe_at is None:
            await self._woken.wait()
        else:
            await self._clock.wait(self._woken, max(0.0, probe_at - self._clock.monotonic()))

    def _waits_for(self, pool: EndpointWorkers) -> bool:
        """Return whether there is work for a pool whose endpoint is down."""
        return not pool.breaker.closed and any(self._pools.get(w.endpoint) is pool and not w.over for w in self._work)

    async def watch(self) -> None:
        """Give up leases that ran out or whose mailing was changed, paused or ended, until cancelled.

        What nobody has begun to send goes back into open work, even while the endpoint hangs.
        The other leases are confirmed: without this nothing of them would start any more.
        """
        while True:
            await self._clock.sleep(REFRESH_INTERVAL)
            if not self._registry.leases:
                continue
            asked = self._clock.monotonic()
            leases = list(self._registry.leases)
            try:
                now = await self._ledger.definitions(list(self._registry.by_mailing))
                self._confirm(leases, now, asked)
                await self._breaker_sync.learn(self._all_pools)
            except StorageUnavailable:
                continue

    def _confirm(self, leases: list[Lease], now: Mapping[int, Mailing], asked: float) -> None:
        """Compare the leases with the mailings as they were when the database was `asked`."""
        monotonic = self._clock.monotonic()
        for lease in leases:
            mailing = now.get(lease.mailing.id)
            if mailing is not None and not _changed(mailing, lease.mailing) and monotonic < lease.send_until:
                lease.confirm(asked)
            elif lease.release(mailing or lease.mailing):
                self._finished(lease)
        for pool in self._all_pools:
            pool.start_workers()

    async def _claim_all(self) -> None:
        """Claim, several batches at once, until nothing open is left or nothing has room."""
        claims: set[asyncio.Task[bool]] = set()
        scanned = False
        try:
            while True:
                chosen = self._choose() if len(claims) < CLAIMS_AT_ONCE else None
                if chosen is not None:
                    claims.add(self._begin(chosen))
                elif claims:
                    done, claims = await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
                    for failure in [claim.exception() for claim in done]:
                        if failure is not None:
                            raise failure
                    scanned = scanned and not any(claim.result() for claim in done)
                elif scanned:
                    return
                else:
                    await self._scan()
                    scanned = True
        finally:
            await asyncio.gather(*claims, return_exceptions=True)

    async def _scan(self) -> None:
        """Learn what is open, and the mailings that were changed since last time."""
        if self._orphans:
            await self._ledger.release_orphans([lease.batch.no for lease in self._registry.leases])
            self._orphans = False
        work = await self._ledger.scan()
        self._open = {(w.mailing_id, w.bucket): w.batches for w in work}
        known = self._jobs
        stale = {w.mailing_id for w in work if w.mailing_id not in known or known[w.mailing_id].version != w.version}
        stale |= self._stale
        self._stale.clear()
        if stale:
            definitions = await self._ledger.definitions(list(stale))
            known.update({mailing_id: job for mailing_id, mailing in definitions.items() if (job := _job(mailing))})
        self._work = [w for w in work if w.mailing_id in known]
        for mailing_id in known.keys() - {w.mailing_id for w in work}:
            del known[mailing_id]
        await self._look_after_endpoints()
        # Its age counts from now: however slow the database is, what it said is used once.
        self._scanned = self._clock.monotonic()

    async def _look_after_endpoints(self) -> None:
        """Learn which endpoints are down, and try those whose turn it is."""
        await self._breaker_sync.learn(self._all_pools)
        for pool in self._all_pools:
            if self._waits_for(pool):
                await self._breaker_sync.probe(pool)

    def _choose(self) -> OpenWork | None:
        """Return the most urgent piece of known work that has room, None when there is none."""
        if self._registry.unsettled >= MOST_UNSETTLED or self._clock.monotonic() - self._scanned > SCAN_AGE:
            return None
        held = self._registry.by_mailing
        equal = self._random.random() * EQUAL_TURN < 1
        room: dict[int, bool] = {}
        return min(
            (w for w in self._work if self._open[w.mailing_id, w.bucket] > 0 and self._has_room(w, room)),
            key=lambda w: (equal or -w.priority, held[w.mailing_id], self._random.random()),
            default=None,
        )

    def _has_room(self, work: OpenWork, known: dict[int, bool]) -> bool:
        """Return whether its pool takes a batch of it; `known` holds what was found out for other buckets."""
        if work.over:
            return True
        room = known.get(work.mailing_id)
        if room is None:
            pool = self._pools.get(work.endpoint)
            rated = self._jobs[work.mailing_id].mailing.max_rate > 0
            room = known[work.mailing_id] = pool is not None and pool.has_room(work.mailing_id, rated)
        return room

    def _begin(self, work: OpenWork) -> asyncio.Task[bool]:
        """Begin a claim; its pool and its piece of work count it from now on."""
        self._open[work.mailing_id, work.bucket] -= 1
        pool = self._pools.get(work.endpoint)
        if pool is not None:
            pool.promised[work.mailing_id] += 1
        return asyncio.create_task(self._claim(work, pool))

    async def _claim(self, work: OpenWork, pool: EndpointWorkers | None) -> bool:
        """Lease one batch and hand it on; False when there was none to be had."""
        job = self._jobs[work.mailing_id]
        asked = self._clock.monotonic()
        try:
            batches = await self._ledger.claim(job.mailing, work.bucket, 1, self._lease, job.render)
        finally:
            if pool is not None:
                pool.promised[work.mailing_id] -= 1
        if not batches:
            # Another replica was faster, or the mailing is no longer as it was learned.
            self._open[work.mailing_id, work.bucket] = 0
            self._stale.add(work.mailing_id)
        for batch in batches:
            self._hand_on(Lease(batch, job.mailing, asked, self._sending, self._clock.monotonic))
        return bool(batches)

    def _hand_on(self, lease: Lease) -> None:
        self._registry.add(lease)
        lease.resolve_unsendable()
        if lease.left:
            self._pools[lease.mailing.endpoint].enqueue(lease)
        else:
            self._finished(lease)


class _Job(NamedTuple):
    """A mailing with its text as everybody gets it, or with what renders it for each."""

    mailing: Mailing
    render: Render | None

    @property
    def version(self) -> int:
        return self.mailing.version


def _job(mailing: Mailing) -> _Job | None:
    """None for a text that cannot be rendered: the API takes none, so somebody wrote it by hand."""
    try:
        template = parse(mailing.text)
    except TemplateError as error:
        told = "mailing %d waits: its text is no template: %s"
        log.error(told, mailing.id, error, extra={"mailing_id": mailing.id})
        return None
    if template.is_constant:
        return _Job(replace(mailing, text=template.render("", "", "", "", {})), None)
    return _Job(mailing, template.render)


def _changed(now: Mailing, then: Mailing) -> bool:
    sendable = (MailingState.RUNNING,)
    return now.version != then.version or (now.state is not then.state and now.state not in sendable)
