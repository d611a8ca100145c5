"""Plans: starts what is due, expands audiences, rechecks open ones, completes what is over.

Each round polls the database once, does what there is to do, and waits as long as the back-off
says. Any number of replicas may plan at once; every step
is one statement that does nothing when another replica was faster.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from random import Random

from dispatcher import retry_policy as policy
from dispatcher.claimer import Claimer
from dispatcher.model.batches import BATCH_SIZE
from dispatcher.model.mailings import Expansion, PollResult
from dispatcher.model.settings import DispatchSettings
from dispatcher.poll_backoff import PollBackoff
from dispatcher.ports import Clock, MailingPlan, StorageUnavailable

log = logging.getLogger(__name__)

CHECK_INTERVAL = 10.0
"""Seconds between two rounds that also find what no hint and no poll named, while mailings run."""

IDLE_CHECK_INTERVAL = 300.0
"""The same while none does."""

ENDING_INTERVAL = 0.2
"""The same while the end of one has passed and it is not completed."""

STEPS_AT_ONCE = 2
"""Buckets of a mailing that are expanded at the same time."""

EXPANSION_TIME = 0.25
"""Seconds for which mailings are expanded before the next poll: a pass that has begun ends."""

_THROTTLED_WAIT = 0.2
_CHANGES_PER_STEP = 10


class Planner:
    """Plans for all mailings, and wakes the claimer whenever there may be something to claim.

    `settings` may be replaced at any time.
    """

    def __init__(
        self,
        plan: MailingPlan,
        poll_backoff: PollBackoff,
        settings: DispatchSettings,
        clock: Clock,
        random: Random,
        claimer: Claimer,
    ) -> None:
        self._plan = plan
        self._poll_backoff = poll_backoff
        self.settings = settings
        self._clock = clock
        self._random = random
        self._claimer = claimer
        self._limits: dict[int, int] = {}
        self._perhaps_done: set[int] = set()
        self._checked_at = -inf  # the first round finds what one that was killed left undone

    def drained(self, mailing_id: int) -> None:
        """Note that a mailing has perhaps nothing left to do."""
        self._perhaps_done.add(mailing_id)
        self._poll_backoff.hint()

    async def run(self) -> None:
        """Plan until cancelled."""
        hinted = True
        while True:
            next_in: float | None = None
            try:
                next_in = await self._round(hinted)
            except StorageUnavailable as error:
                log.warning("planning waits for the database: %s", error)
                self._poll_backoff.reset()
                await self._clock.sleep(1.0)
            hinted = await self._poll_backoff.wait(next_in)

    async def _round(self, hinted: bool) -> float | None:
        """Poll once and do what there is to do; return when to poll next, in seconds."""
        poll = await self._plan.poll()
        if poll.claims:
            self._claimer.wake()
        started = await self._plan.start_due() if poll.starts or poll.ends else []
        throttled = False
        if started or poll.expands or poll.ends:
            throttled = await self._expand_all()
        found = poll.rechecks and await self._recheck_all()
        await self._finish(poll, hinted)
        if started or found or (poll.expands and not throttled):
            self._poll_backoff.reset()
            return 0.0
        # Open work alone is no reason to poll again at once: the claimer knows of it, and of the room for it.
        return _THROTTLED_WAIT if throttled or poll.ends else poll.next_in

    async def _finish(self, poll: PollResult, hinted: bool) -> None:
        """End the mailings that are done, and expedite what waits in those that are over."""
        pause = ENDING_INTERVAL if poll.ends else CHECK_INTERVAL if poll.running else IDLE_CHECK_INTERVAL
        full = self._clock.monotonic() - self._checked_at > pause
        if hinted or full:
            await self._plan.expedite()
        if full:
            self._checked_at = self._clock.monotonic()
            self._claimer.wake()
            await self._plan.expanded(self.settings.recheck_min)
            await self._plan.complete()
            await self._plan.forget_changes()
        elif self._perhaps_done:
            # Taken before the question is asked: one that is drained meanwhile is asked about next.
            done, self._perhaps_done = self._perhaps_done, set()
            await self._plan.complete(list(done))

    async def _expand_all(self) -> bool:
        """Expand each mailing a little, again for a while; return whether all of them are ahead of sending."""
        until = self._clock.monotonic() + EXPANSION_TIME
        while True:
            expansions = await self._plan.expandable(policy.OPEN_BATCHES)
            for one in expansions:
                if one.open_batches:  # perhaps made by another replica
                    self._claimer.added(one.mailing_id)
            behind = [one for one in expansions if one.open_batches < policy.OPEN_BATCHES or one.over]
            for expansion in behind:
                await self._expand(expansion)
            if not behind:
                return bool(expansions)
            if self._clock.monotonic() >= until:
                return False

    async def _expand(self, expansion: Expansion) -> None:
        """Take one step in every bucket of a mailing, until it is well ahead of sending."""
        buckets = list(expansion.positions)
        self._random.shuffle(buckets)
        ahead = policy.OPEN_BATCHES * BATCH_SIZE // 2
        unfinished = len(buckets)
        for at in range(0, len(buckets), STEPS_AT_ONCE):
            steps = await asyncio.gather(*(self._step(expansion, b) for b in buckets[at : at + STEPS_AT_ONCE]))
            unfinished -= sum(finished for _, finished in steps)
            ahead -= sum(inserted for inserted, _ in steps)
            if ahead <= 0 and not expansion.over:
                break
        if not unfinished:
            self._limits.pop(expansion.mailing_id, None)
            await self._plan.expanded(self.settings.recheck_min)
            self._perhaps_done.add(expansion.mailing_id)

    async def _step(self, expansion: Expansion, bucket: int) -> tuple[int, bool]:
        """Go on in one bucket; return the messages made and whether the bucket is finished.

        Until there is a message to send: the few clients of a rare audience are found bucket by
        bucket, and the first one does not wait until all clients are read.
        """
        size = policy.batch_size(expansion.semantics, expansion.max_rate, BATCH_SIZE)
        while True:
            limit = self._limits.get(expansion.mailing_id, policy.EXPAND_FIRST)
            step = await self._plan.expand(expansion, bucket, size, limit)
            if step.moved:
                self._limits[expansion.mailing_id] = policy.next_step(limit, step.seen, step.inserted)
            if step.inserted:
                self._claimer.added(expansion.mailing_id)
            if step.inserted or step.finished or not step.moved:
                return step.inserted, step.finished
            expansion.positions[bucket] = step.position

    async def _recheck_all(self) -> bool:
        """Take clients into open mailings that began to match since the last time; return whether there were any."""
        checked, found = [], []
        for expansion in await self._plan.rechecks_due():
            checked.append(expansion.mailing_id)
            if sum([await self._recheck(expansion, bucket) for bucket in expansion.positions]):
                found.append(expansion.mailing_id)
                self._claimer.wake()
        if checked:
            await self._plan.rechecked(checked, found, self.settings.recheck_min, self.settings.recheck_max)
        return bool(found)

    async def _recheck(self, expansion: Expansion, bucket: int) -> int:
        """Read the changes of one bucket to their end; return the messages made."""
        size = policy.batch_size(expansion.semantics, expansion.max_rate, BATCH_SIZE)
        inserted = 0
        while True:
            step = await self._plan.expand_changes(expansion, bucket, size, _CHANGES_PER_STEP)
            inserted += step.inserted
            expansion.positions[bucket] = step.position
            if step.finished or not step.moved:
                return inserted
