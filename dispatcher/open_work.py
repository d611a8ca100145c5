"""What is open by the last scan, and the order in which it is claimed.

The highest priority comes first, but for every tenth claim, so that none starves; among
mailings of one priority the one of which the fewest batches are held here, so a huge mailing
never holds up a small one. Work is chosen only while its endpoint's pool has room, and while
its outcomes could be recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import NamedTuple

from dispatcher.endpoint_workers import EndpointWorkers
from dispatcher.fair_queue import EQUAL_TURN
from dispatcher.leases import LeaseRegistry
from dispatcher.model.batches import OpenWork
from dispatcher.model.mailings import Mailing
from dispatcher.model.requests import RequestForm
from dispatcher.model.templates import TemplateError, parse
from dispatcher.model.texts import TextRenderer
from dispatcher.ports import Clock, Render, WorkQueue
from dispatcher.recording import Recording

log = logging.getLogger(__name__)

SCAN_AGE = 0.25
"""Seconds after which a scan is too old to choose from."""

MOST_UNSETTLED = 64
"""Batches that wait to be settled: more hold back further claims."""


class Job(NamedTuple):
    """A mailing with its text as everybody gets it, or with what renders it for each."""

    mailing: Mailing
    render: Render | None


class OpenWorkList:
    """The open work that this replica knows of. `pools` are those to which it may be handed, by endpoint."""

    def __init__(
        self,
        queue: WorkQueue,
        registry: LeaseRegistry,
        recording: Recording,
        pools: Mapping[str, EndpointWorkers],
        clock: Clock,
        random: Random,
        max_sms_segments: int,
    ) -> None:
        self.pools = pools
        self._max_segments = max_sms_segments
        self._queue = queue
        self._registry = registry
        self._recording = recording
        self._clock = clock
        self._random = random
        self._jobs: dict[int, Job] = {}
        self._stale: set[int] = set()
        self._work: list[OpenWork] = []
        self._open: dict[tuple[int, int], int] = {}
        self._scanned = -SCAN_AGE

    async def scan(self) -> None:
        """Learn what is open, and the mailings that were changed since last time. Raise StorageUnavailable."""
        work = await self._queue.scan()
        self._open = {(w.mailing_id, w.bucket): w.batches for w in work}
        await self._learn_definitions(work)
        self._work = [w for w in work if w.mailing_id in self._jobs]
        for mailing_id in self._jobs.keys() - {w.mailing_id for w in work}:
            del self._jobs[mailing_id]

    def restart_age(self) -> None:
        """Let the age of the scan count from now: however slow the database is, its answer is used once."""
        self._scanned = self._clock.monotonic()

    async def _learn_definitions(self, work: list[OpenWork]) -> None:
        stale = {w.mailing_id for w in work if self._version(w.mailing_id) != w.version} | self._stale
        self._stale.clear()
        if stale:
            mailings = await self._queue.definitions(list(stale))
            jobs = {id_: self._job(mailing) for id_, mailing in mailings.items()}
            self._jobs.update({id_: job for id_, job in jobs.items() if job})

    def _job(self, mailing: Mailing) -> Job | None:
        pool = self.pools.get(mailing.endpoint)
        return _job(mailing, self._max_segments, pool.request_form if pool else None)

    def _version(self, mailing_id: int) -> int | None:
        job = self._jobs.get(mailing_id)
        return None if job is None else job.mailing.version

    def choose(self) -> OpenWork | None:
        """Return the most urgent piece of known work that has room, None when there is none."""
        if self._registry.unsettled >= MOST_UNSETTLED or not self._is_recent():
            return None
        held = self._registry.by_mailing
        equal = self._random.random() * EQUAL_TURN < 1
        room: dict[int, bool] = {}
        return min(
            (w for w in self._work if self._open[w.mailing_id, w.bucket] > 0 and self._has_room(w, room)),
            key=lambda w: (equal or -w.priority, held[w.mailing_id], self._random.random()),
            default=None,
        )

    def waits_for_room(self, mailing_id: int | None = None) -> bool:
        """Return whether a recent scan found work that is still open, of a mailing or of any.

        As long as an endpoint is down it does not, since a scan tries these as well.
        """
        if not self._is_recent() or any(self.waits_for(pool) for pool in self.pools.values()):
            return False
        return any(n > 0 for (id_, _), n in self._open.items() if mailing_id in (None, id_))

    def _is_recent(self) -> bool:
        return self._clock.monotonic() - self._scanned <= SCAN_AGE

    def _has_room(self, work: OpenWork, known: dict[int, bool]) -> bool:
        """Return whether a batch of it may be claimed; `known` holds what was found out for other buckets."""
        if not self._recording.allows(work.mailing_id):
            return False
        if work.over:
            return True
        room = known.get(work.mailing_id)
        if room is None:
            pool = self.pools.get(work.endpoint)
            mailing = self._jobs[work.mailing_id].mailing
            room = known[work.mailing_id] = (
                pool is not None
                and not pool.is_full(mailing)
                and pool.has_room(work.mailing_id, has_rate=mailing.is_limited)
            )
        return room

    def begin(self, work: OpenWork) -> Job:
        """Count a claim of a batch from now on, here and in its pool, and return the mailing."""
        self._open[work.mailing_id, work.bucket] -= 1
        if (pool := self.pools.get(work.endpoint)) is not None:
            pool.promised[work.mailing_id] += 1
        return self._jobs[work.mailing_id]

    def end(self, work: OpenWork) -> None:
        """Count the claim no more: it has ended."""
        if (pool := self.pools.get(work.endpoint)) is not None:
            pool.promised[work.mailing_id] -= 1

    def forget(self, work: OpenWork) -> None:
        """Note that there was nothing: another replica was faster, or the mailing is no longer as it was learned."""
        self._open[work.mailing_id, work.bucket] = 0
        self._stale.add(work.mailing_id)

    def waits_for(self, pool: EndpointWorkers) -> bool:
        """Return whether there is work for a pool whose endpoint is down."""
        return not pool.breaker.closed and any(self.pools.get(w.endpoint) is pool and not w.over for w in self._work)


def _job(mailing: Mailing, max_segments: int, form: RequestForm | None) -> Job | None:
    """Return the job; None for a text that cannot be rendered, which no caller of the API can have written."""
    try:
        template = parse(mailing.text)
    except TemplateError as error:
        log.error("mailing %d waits: its text is no template: %s", mailing.id, error, extra={"mailing_id": mailing.id})
        return None
    render = TextRenderer(template, max_segments, form, mailing.title)
    if render.is_constant and not (everybodys := render("", "", "", "", {})).reason:
        return Job(replace(mailing, text=everybodys.text), None)
    return Job(mailing, render)
