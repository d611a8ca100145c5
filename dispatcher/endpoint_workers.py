"""Sends: one pool per endpoint, with as many requests in flight as the endpoint bears.

A pool owns the leases handed to it until every message has an outcome. A worker takes one
message at a time, of the mailing whose turn it is; workers come and go with the work, with
the concurrency limit, the rates and the breaker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from random import Random

from dispatcher import retry_policy as policy
from dispatcher.breaker import Breaker
from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.fair_queue import FairQueue
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.batches import BATCH_SIZE, Recipient
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.outcomes import Outcome
from dispatcher.model.states import ErrorClass, Semantics, Suspension
from dispatcher.pace import Pace
from dispatcher.ports import Clock, Sender
from dispatcher.rate_limiter import RateLimiter
from dispatcher.refusals import TRIES, Refusal, Refusals
from dispatcher.signals import Signal
from dispatcher.tasks import cancel
from dispatcher.verdict import Verdict, judge

log = logging.getLogger(__name__)

_AT_MOST_ONCE = Semantics.AT_MOST_ONCE  # looked at for each message, and members of an enum take long to look up

_LOOKED_AT = frozenset({ErrorClass.REFUSED, ErrorClass.REJECTED, ErrorClass.REDIRECT})
"""Answers that refuse a message, but not for want of time."""

MOST_LEASES = 64
"""Leases of one pool with messages that wait. Of more mailings than that, some wait for a lease."""


class EndpointWorkers:
    """The way to one endpoint. `last_error` says in a few words what spoke against it last.

    Emits `has_room_again` when another batch may be claimed, `rate_blocked` when messages wait for
    moments that their rates allow, `throttled` with how many seconds of patience the endpoint asks for,
    `breaker_opened`, and `probe_ended` with whether it recovered.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sender: Sender,
        registry: LeaseRegistry,
        limit: ConcurrencyLimit,
        clock: Clock,
        random: Random,
    ) -> None:
        self.has_room_again: Signal[()] = Signal()
        self.rate_blocked: Signal[()] = Signal()
        self.throttled: Signal[EndpointWorkers, float] = Signal()
        self.breaker_opened: Signal[EndpointWorkers] = Signal()
        self.probe_ended: Signal[EndpointWorkers, bool] = Signal()
        self.name = endpoint.name
        self.longest = endpoint.total_timeout
        self.active = 0
        self.promised: Counter[int] = Counter()
        self.limit = limit
        self.breaker = Breaker()
        self.refusals = Refusals()
        self.pace = Pace()
        self.limiter = RateLimiter(f"endpoint/{endpoint.name}", endpoint.max_rate) if endpoint.max_rate > 0 else None
        self.queue = FairQueue()
        self.last_error = ""
        self._sender = sender
        self._registry = registry
        self._success = endpoint.success
        self._now = clock.monotonic
        self._random = random
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many messages nobody has begun to send."""
        return self.queue.waiting

    def has_room(self, mailing_id: int, has_rate: bool) -> bool:
        """Return whether another batch of the mailing should be claimed; `has_rate` says that it has a rate.

        Every mailing may have one waiting, so that a small one never waits for a large one, and
        one with a rate a second; the others share room for a few, or for as many messages as are in
        flight. `promised` counts the batches that are being claimed for this pool.
        """
        self.queue.tidy()
        promised = self.promised.total()
        held = self.queue.leases + promised
        if held >= MOST_LEASES or not (self.breaker.closed or (self._may_probe() and held == 0)):
            return False
        queue = self.queue.queues.get(mailing_id)
        mine = self.promised[mailing_id] + (len(queue.leases) if queue else 0)
        if mine == 0 or has_rate or self.limiter is not None:
            return mine < 2
        leases, waiting = self.queue.without_rate()
        return leases + promised < 4 or waiting + promised * BATCH_SIZE < self.limit.value

    def enqueue(self, lease: Lease) -> None:
        """Take over a lease and send its messages."""
        self.queue.add(lease)
        if lease.mailing.max_rate > 0 or self.limiter is not None or not self.pace.is_free:
            self.rate_blocked.emit()
        self.start_workers()

    def start_workers(self) -> None:
        """Let as many workers work as the limit, the rates and the work allow."""
        now = self._now()
        startable = self.queue.startable(now)
        if self.limiter is not None:
            startable = min(startable, self.limiter.ready(now))
        if not self.pace.is_free:
            startable = self.pace.ready(now, startable)
        wanted = min(self._allowed(), self.active + startable)
        while self.active < wanted:
            self.active += 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._left)

    def _allowed(self) -> int:
        """Return how many requests may be in flight: one while it is tried whether the endpoint recovered."""
        if self.breaker.closed:
            return 1 if self.pace.trial else self.limit.value
        return 1 if self._may_probe() else 0

    def _may_probe(self) -> bool:
        return self.breaker.probing(self._now())

    def _left(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()):
            log.error("a worker died and is replaced", exc_info=error)
            self.start_workers()

    async def _work(self) -> None:
        try:
            while self.active <= self._allowed():
                now = self._now()
                lease = self._next(now)
                if lease is None:
                    return
                taken = lease.take()
                if taken:
                    self._pass_gates(now)
                if not lease.untaken:
                    self.queue.tidy()
                    self.has_room_again.emit()
                for index in taken:
                    await self._deliver(lease, index, now)
        finally:
            self.active -= 1
            if not self.active:
                self.limit.idle()

    def _next(self, now: float) -> Lease | None:
        """Return the lease whose message leaves next, None when none may leave now."""
        if self.limiter is not None and not self.limiter.open(now):
            return None
        if not self.pace.is_free and not self.pace.ready(now, 1):
            return None
        return self.queue.next(now)

    def _pass_gates(self, now: float) -> None:
        if not self.pace.is_free:
            self.pace.take(now)
        if self.limiter is not None:
            self.limiter.take()
        if (limiter := self.queue.limiter) is not None:
            limiter.take()

    async def _deliver(self, lease: Lease, index: int, began: float) -> None:
        """One message, from the last check before the request, at `began`, to its outcome."""
        recipient = lease.batch.recipients[index]
        mailing = lease.mailing
        if recipient.phone is None or not lease.allows(index, began):
            self._withhold(lease, index)
            return
        try:
            answer = await self._sender.send(
                mailing.id << 32 | recipient.client_id,
                recipient.phone,
                recipient.text,
                mailing.semantics is _AT_MOST_ONCE,
                lease.permit(index),
            )
        except Exception:
            # A defect in a sender must not lose a message: it may have been sent.
            log.exception("the sender failed")
            answer = Answer(0, b"", None, ErrorClass.PROTOCOL, True, self._now() - began)
        if answer is None:
            self._withhold(lease, index)
            return
        verdict = judge(answer, self._success)
        self._learn(began, answer, verdict, recipient.client_id)
        if verdict.delivered:
            self._record(lease, index, policy.delivered(answer))
        else:
            self._record(lease, index, self._failed(lease, recipient, began, answer, verdict))

    def _failed(self, lease: Lease, recipient: Recipient, began: float, answer: Answer, verdict: Verdict) -> Outcome:
        """Return what to record of a failed attempt: a refusal may speak of us, or of this message alone."""
        suspension, excused = self.breaker.suspension, False
        if suspension is Suspension.NONE:
            if verdict.error_class is ErrorClass.CREDENTIALS and recipient.attempts >= TRIES:
                verdict = verdict._replace(retryable=False)  # others are accepted
        elif suspension is not Suspension.CREDENTIALS:
            excused = self.refusals.is_excused(_refusal(answer, verdict))
        return policy.failed(
            lease.mailing, recipient, answer, verdict, lease.now_at(began), self._random, excused=excused
        )

    def _learn(self, began: float, answer: Answer, verdict: Verdict, client_id: int) -> None:
        """Draw the conclusions of an answer for what is sent next."""
        now = began + answer.duration
        if self.limit.observe(now, answer.duration, verdict.error_class, self.active):
            self.start_workers()
        self._learn_pace(now, began, verdict)
        failed = verdict.error_class in policy.DOWN
        suspension = self._learn_refusal(began, answer, verdict, client_id)
        if failed or suspension:
            self.last_error = f"{verdict.error_class.name} {answer.status or ''} {verdict.excerpt[:80]}".strip()
        if self.breaker.observe(now, began, failed) or (suspension and self.breaker.closed):
            self.breaker.open(now)
            self.breaker.suspension = suspension
            self.breaker_opened.emit(self)
            self.has_room_again.emit()
        elif not self.breaker.closed and self.breaker.decides(now, began):
            self._probed(now, failed or self._still_refuses(answer, verdict))

    def _learn_pace(self, now: float, began: float, verdict: Verdict) -> None:
        if verdict.delivered or verdict.error_class in _LOOKED_AT:
            self.pace.accepted(now)
        elif verdict.error_class is ErrorClass.THROTTLED and (
            pause := self.pace.throttled(now, began, verdict.retry_after)
        ):
            self.rate_blocked.emit()
            self.throttled.emit(self, pause)

    def _learn_refusal(self, began: float, answer: Answer, verdict: Verdict, client_id: int) -> Suspension:
        """Return what this answer means together with those before it, where it was not accepted."""
        if verdict.delivered:
            self.refusals.succeeded()
            return Suspension.NONE
        if not self.breaker.closed or self.breaker.is_before_closing(began):
            return Suspension.NONE
        return self.refusals.observe(began, _refusal(answer, verdict), client_id)

    def _still_refuses(self, answer: Answer, verdict: Verdict) -> bool:
        suspension = self.breaker.suspension
        if verdict.delivered or suspension is Suspension.NONE:
            return False
        return self.refusals.persists(suspension, _refusal(answer, verdict))

    def _probed(self, now: float, failed: bool) -> None:
        """End the probe: with a few requests at first, or with another wait."""
        if failed:
            self.breaker.open(now)
        else:
            self.refusals.healed(self.breaker.suspension)
            self.breaker.close(now)
            self.limit.restart()
        self.probe_ended.emit(self, not failed)
        self.has_room_again.emit()

    def _withhold(self, lease: Lease, index: int) -> None:
        """Put back a message that was not begun: until its mailing is confirmed, or for the next lease."""
        if lease.can_wait(index, self._now()):
            lease.give_back(index)
            self.queue.restore(lease)
        else:
            lease.keep(index)
            self._finish(lease)

    def _record(self, lease: Lease, index: int, outcome: Outcome) -> None:
        lease.record(index, outcome)
        self._finish(lease)

    def _finish(self, lease: Lease) -> None:
        if not lease.left:
            self._registry.settle_soon(lease)

    async def close(self) -> None:
        """End the workers; their requests under way are cut off."""
        await cancel(*self._workers)
        await self._sender.close()


def _refusal(answer: Answer, verdict: Verdict) -> Refusal:
    return Refusal(verdict.error_class, answer.status, verdict.endpoint_code)
