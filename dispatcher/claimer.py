"""Claims open work: scans without locks, and leases batch by batch.

Several claims are under way at once; each batch goes to its endpoint's pool, or straight to the
settler when nothing of it is to be sent.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from dispatcher.breaker_sync import BreakerSync
from dispatcher.leases import Lease, LeaseRegistry, LeaseTerms
from dispatcher.model.batches import OpenWork
from dispatcher.open_work import Job, OpenWorkList
from dispatcher.ports import Clock, StorageUnavailable, WorkQueue

log = logging.getLogger(__name__)

CLAIMS_AT_ONCE = 3
"""Claims under way at the same time: one takes several turns of a busy event loop."""


class Claimer:
    """Leases batches under `terms` and hands them to their pools."""

    def __init__(
        self,
        queue: WorkQueue,
        work: OpenWorkList,
        breaker_sync: BreakerSync,
        registry: LeaseRegistry,
        terms: LeaseTerms,
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._work = work
        self._breaker_sync = breaker_sync
        self._registry = registry
        self._terms = terms
        self._clock = clock
        self._woken = asyncio.Event()
        self._unknown = True
        self._orphans = False

    def wake(self) -> None:
        """Note that there may be open work that no scan has found."""
        self._unknown = True
        self._woken.set()

    def added(self, mailing_id: int) -> None:
        """Note that a mailing has more open work: no news as long as it has some that waits."""
        self._unknown = self._unknown or not self._work.waits_for_room(mailing_id)
        self._woken.set()

    def room_again(self) -> None:
        """Note that there is room for open work."""
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
        pools = self._work.pools.values()
        probe_at = min((pool.breaker.probe_at for pool in pools if self._work.waits_for(pool)), default=None)
        if probe_at is None:
            await self._woken.wait()
        else:
            await self._clock.wait(self._woken, max(0.0, probe_at - self._clock.monotonic()))

    async def _claim_all(self) -> None:
        """Claim, several batches at once, until nothing open is left or nothing has room."""
        claims: set[asyncio.Task[bool]] = set()
        scanned = False
        try:
            while True:
                chosen = self._work.choose() if len(claims) < CLAIMS_AT_ONCE else None
                if chosen is not None:
                    claims.add(asyncio.create_task(self._claim(chosen, self._work.begin(chosen))))
                elif claims:
                    done, claims = await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
                    for failure in [claim.exception() for claim in done]:
                        if failure is not None:
                            raise failure
                    scanned = scanned and not any(claim.result() for claim in done)
                elif scanned:
                    return
                elif not self._unknown and self._work.waits_for_room():
                    await self._breaker_sync.learn(self._work.pools.values())
                    return
                else:
                    await self._scan()
                    scanned = True
        finally:
            await asyncio.gather(*claims, return_exceptions=True)

    async def _scan(self) -> None:
        """Learn what is open and which endpoints are down, and try those whose turn it is."""
        if self._orphans:
            await self._queue.release_orphans(self._registry.batch_numbers)
            self._orphans = False
        self._unknown = False
        await self._work.scan()
        await self._breaker_sync.learn(self._work.pools.values())
        for pool in self._work.pools.values():
            if self._work.waits_for(pool):
                await self._breaker_sync.probe(pool)
        self._work.restart_age()

    async def _claim(self, work: OpenWork, job: Job) -> bool:
        """Lease one batch and hand it on; return False when there was none to be had."""
        asked = self._clock.monotonic()
        try:
            held = self._registry.batch_numbers  # a lease may be over while its outcomes wait here
            batches = await self._queue.claim(job.mailing, work.bucket, 1, self._terms.length, job.render, held)
        finally:
            self._work.end(work)
        if not batches:
            self._work.forget(work)
        mailing = replace(job.mailing, day_full=True) if work.day_full else job.mailing
        for batch in batches:
            self._hand_on(Lease(batch, mailing, asked, self._terms, self._clock.monotonic))
        return bool(batches)

    def _hand_on(self, lease: Lease) -> None:
        self._registry.add(lease)
        lease.resolve_unsendable()
        if lease.left:
            self._work.pools[lease.mailing.endpoint].enqueue(lease)
        else:
            self._registry.settle_soon(lease)
