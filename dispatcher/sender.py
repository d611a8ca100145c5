"""Sends: one lane per endpoint, with as many requests in flight as the endpoint bears.

A lane owns the leases handed to it until every message has an outcome. A worker takes one
message at a time from the first lease that still has any; workers come and go with the work
and with the concurrency limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from random import Random

from dispatcher import policy
from dispatcher.concurrency import ConcurrencyLimit
from dispatcher.lease import Lease
from dispatcher.model import BATCH_SIZE, Answer, ErrorClass, Outcome, Semantics, SuccessRule
from dispatcher.ports import Clock, Sender
from dispatcher.protocol import judge

log = logging.getLogger(__name__)

NEVER = float("inf")


class Lane:
    """The way to one endpoint.

    `success` says which answers deliver a message. `finished` is called with each lease whose
    messages all have an outcome, `hungry` when there is room for another lease.
    """

    def __init__(
        self,
        sender: Sender,
        clock: Clock,
        limit: ConcurrencyLimit,
        success: SuccessRule,
        random: Random,
        finished: Callable[[Lease], None],
        hungry: Callable[[], None],
    ) -> None:
        self.active = 0
        self.promised = 0
        self.limit = limit
        self._success = success
        self._sender = sender
        self._clock = clock
        self._random = random
        self._finished = finished
        self._hungry = hungry
        self._leases: deque[Lease] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many messages nobody has begun to send."""
        return sum(lease.untaken for lease in self._leases)

    @property
    def has_room(self) -> bool:
        """Whether another batch should be claimed: at most two wait behind the one at
        work, and one more may be on its way.

        `promised` counts those that are being claimed for this lane.
        """
        ahead = len(self._leases) + self.promised
        return ahead < 4 or self.waiting + self.promised * BATCH_SIZE < self.limit.value

    def feed(self, lease: Lease) -> None:
        """Takes over a lease and sends its messages."""
        self._leases.append(lease)
        self._staff()

    def _staff(self) -> None:
        """Lets as many workers work as the limit and the work allow."""
        wanted = min(self.limit.value, self.active + self.waiting)
        while self.active < wanted:
            self.active += 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._left)

    def _left(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()):
            log.error("a worker died and is replaced", exc_info=error)
        if self._leases:
            self._staff()

    def _front(self) -> Lease | None:
        """The first lease with a message that nobody has begun to send."""
        while self._leases:
            if self._leases[0].untaken:
                return self._leases[0]
            self._leases.popleft()
            self._hungry()
        return None

    async def _work(self) -> None:
        try:
            while self.active <= self.limit.value and (lease := self._front()) is not None:
                index = lease.take()
                if index >= 0:
                    await self._deliver(lease, index)
        finally:
            self.active -= 1

    async def _deliver(self, lease: Lease, index: int) -> None:
        """One message, from the last check before the request to its outcome."""
        recipient = lease.batch.recipients[index]
        began = self._clock.monotonic()
        closes_at = NEVER if recipient.closes_in is None else lease.asked + recipient.closes_in

        def may_start() -> bool:
            now = self._clock.monotonic()
            return not lease.revoked and now < lease.send_until and now < closes_at

        mailing = lease.mailing
        answer: Answer | None = None
        try:
            # Asked here as well: what may not start is not worth waiting for a connection.
            if recipient.phone is not None and may_start():
                answer = await self._sender.send(
                    mailing.id << 32 | recipient.client_id,
                    recipient.phone,
                    recipient.text,
                    mailing.semantics is Semantics.AT_MOST_ONCE,
                    may_start,
                )
        except Exception:
            # A defect in a sender must not lose a message: it may have been sent.
            log.exception("the sender failed")
            answer = Answer(0, b"", None, ErrorClass.PROTOCOL, True, self._clock.monotonic() - began)
        if answer is None:
            # One time for the whole lease: what is put off together becomes one batch.
            self._record(lease, index, policy.put_off(lease.batch.claimed_at))
            return
        verdict = judge(answer, self._success)
        if self.limit.observe(began + answer.duration, answer.duration, verdict.error_class, self.active):
            self._staff()
        if verdict.delivered:
            self._record(lease, index, policy.delivered(answer))
        else:
            began_at = lease.now_at(began)
            self._record(
                lease, index, policy.failed(mailing, recipient.attempts, answer, verdict, began_at, self._random)
            )

    def _record(self, lease: Lease, index: int, outcome: Outcome) -> None:
        lease.record(index, outcome)
        if not lease.left:
            self._finished(lease)

    async def close(self) -> None:
        """Ends the workers; their requests under way are cut off."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._sender.close()
