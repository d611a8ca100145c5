"""Sends: one pool per endpoint, with as many requests in flight as the endpoint bears.

A pool owns the leases handed to it until every message has an outcome. It works by turns: what was
answered since the last turn is judged together, then as many messages are begun as the limit, the
rates, the breaker and the fair queue allow, which are asked once a turn. A message has no task of
its own; whether it may start is asked right before it is written. A turn is short, so that
whatever else runs in the loop has its turn, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from random import Random

from dispatcher import retry_policy as policy
from dispatcher.breaker import Breaker
from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.day_quota import DayQuota
from dispatcher.described_answers import judge_of
from dispatcher.excerpts import Excerpts
from dispatcher.fair_queue import FairQueue
from dispatcher.leases import Lease, LeaseRegistry
from dispatcher.model.batches import BATCH_SIZE
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.mailings import Mailing
from dispatcher.model.outcomes import Outcome
from dispatcher.model.states import ErrorClass, Semantics, Suspension
from dispatcher.model.words import error_words
from dispatcher.pace import Pace
from dispatcher.ports import Clock, Sender
from dispatcher.rate_limiter import RateLimiter
from dispatcher.refusals import TRIES, Refusal, Refusals
from dispatcher.signals import Signal
from dispatcher.verdict import Verdict

log = logging.getLogger(__name__)

_AT_MOST_ONCE = Semantics.AT_MOST_ONCE  # looked at for each message, and members of an enum take long to look up

_LOOKED_AT = frozenset({ErrorClass.REFUSED, ErrorClass.REJECTED, ErrorClass.REDIRECT, ErrorClass.OPTED_OUT})
"""Answers that refuse a message, but not for want of time."""

TURN = 16
"""Answers that are judged, and requests that are begun, in a turn at most: half a millisecond of work.

More make no message cheaper, and whatever else runs in the loop later.
"""

MOST_LEASES = 64
"""Leases of one pool with messages that wait. Of more mailings than that, some wait for a lease."""


class InFlight:
    """A message on its way: begun at `began` (monotonic), with its `answer` once there is one.

    Implements `dispatcher.ports.Request`.
    """

    __slots__ = ("_pool", "answer", "at_most_once", "began", "index", "lease", "message_id", "phone", "text")

    def __init__(self, pool: EndpointWorkers, lease: Lease, index: int, phone: str, began: float) -> None:
        recipients, mailing = lease.batch.recipients, lease.mailing
        self._pool = pool
        self.lease = lease
        self.index = index
        self.began = began
        self.message_id = mailing.id << 32 | recipients.client_ids[index]
        self.phone = phone
        self.text = recipients.texts[index]
        self.at_most_once = mailing.semantics is _AT_MOST_ONCE
        self.answer: Answer | None = None

    @property
    def values(self) -> Sequence[str]:
        """What its endpoint's description needs beside phone and text."""
        values = self.lease.batch.recipients.values
        return values[self.index] if values else ()

    def may_start(self) -> bool:
        """Return whether its lease and its recipient's window let it start at this moment."""
        lease = self.lease
        now = lease.now()
        return lease.allows_all(now) or lease.allows(self.index, now)

    def answered(self, answer: Answer | None) -> None:
        """Keep the answer for the next turn."""
        self.answer = answer
        self._pool.take_note(self)


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
        self.in_flight = 0
        self.promised: Counter[int] = Counter()
        self.limit = limit
        self.breaker = Breaker()
        self.refusals = Refusals()
        self.pace = Pace()
        self.limiter = RateLimiter(f"endpoint/{endpoint.name}", endpoint.max_rate) if endpoint.max_rate > 0 else None
        self.quota = DayQuota(f"endpoint/{endpoint.name}", endpoint.day_limit) if endpoint.day_limit else None
        self.queue = FairQueue()
        self.last_error = ""
        self._sender = sender
        self._registry = registry
        self._excerpts = Excerpts(endpoint)
        self._verdict_of = judge_of(endpoint)
        self.request_form = endpoint.request
        self._now = clock.monotonic
        self._random = random
        self._answered: list[InFlight] = []
        self._turn_is_due = False
        self._closed = False

    def renew(self, endpoint: Endpoint) -> None:
        """Use the secrets of this endpoint from the next request on."""
        self._sender.renew(endpoint)
        self._excerpts = Excerpts(endpoint)

    @property
    def waiting(self) -> int:
        """How many messages nobody has begun to send."""
        return self.queue.waiting

    def has_room(self, mailing_id: int, has_rate: bool) -> bool:
        """Return whether another batch of the mailing should be claimed; `has_rate` says that it has a rate.

        Every mailing may have one waiting, so that a small one never waits for a large one, and
        one with a rate a second; the others share room for a few, or for as many messages as are in
        flight, or for what an endpoint that asked for patience takes soon. `promised` counts the
        batches that are being claimed for this pool.
        """
        self.queue.tidy()
        promised = self.promised.total()
        held = self.queue.leases + promised
        if held >= MOST_LEASES or not (self.breaker.closed or (self._may_probe() and held == 0)):
            return False
        queue = self.queue.queues.get(mailing_id)
        mine = self.promised[mailing_id] + (len(queue.leases) if queue else 0)
        if mine == 0 or has_rate or self._is_limited:
            return mine < 2
        leases, waiting = self.queue.without_rate()
        ahead = waiting + promised * BATCH_SIZE
        if not self.pace.is_free:
            return ahead < self.pace.reach(self._now())
        return leases + promised < 4 or ahead < self.limit.value

    def is_full(self, mailing: Mailing) -> bool:
        """Return whether the day has no room for another message of the mailing, as far as is known."""
        if self.quota is not None and self.quota.is_full():
            return True
        quota = self.queue.quotas.get(mailing.id)
        return quota is not None and quota.limit == mailing.day_limit and quota.is_full()

    @property
    def _is_limited(self) -> bool:
        return self.limiter is not None or self.quota is not None

    def enqueue(self, lease: Lease) -> None:
        """Take over a lease and send its messages."""
        self.queue.add(lease)
        if lease.mailing.is_limited or self._is_limited or not self.pace.is_free:
            self.rate_blocked.emit()
        self.start()

    def start(self) -> None:
        """Begin as many messages as may start now, in a turn that comes at once."""
        if not self._turn_is_due and not self._closed:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def take_note(self, message: InFlight) -> None:
        """Let a message that was answered be judged in the next turn."""
        self._answered.append(message)
        if not self._turn_is_due:
            self.start()

    def _turn(self) -> None:
        self._turn_is_due = False
        if self._closed:
            return
        answered, self._answered = self._answered[:TURN], self._answered[TURN:]
        try:
            if answered:
                self._judge(answered)
            self._begin()
        except Exception:
            log.exception("a turn failed")
        if not self.in_flight:
            self.limit.idle()
        if self._answered:
            self.start()

    def _begin(self) -> None:
        """Begin as many messages as may start now; more than a turn may have wait for the next one."""
        now = self._now()
        room = self._room(now)
        most = min(room, TURN)
        while most > 0:
            lease, count = self.queue.next(now, most)
            if lease is None:
                return
            taken = lease.take(count)
            self._pass_gates(now, len(taken), lease)
            most -= len(taken)
            self._send(lease, taken, now)
            if not lease.untaken:
                self.queue.tidy()
                self.has_room_again.emit()
        if room > TURN:
            self.start()

    def _room(self, now: float) -> int:
        """Return how many messages may be begun now, whatever their mailings."""
        room = self._allowed() - self.in_flight
        if room <= 0 or not self.queue:
            return 0
        for gate in (self.limiter, self.quota):
            if gate is not None:
                room = min(room, gate.ready(now))
        return room if self.pace.is_free else self.pace.ready(now, room)

    def _allowed(self) -> int:
        """Return how many requests may be in flight: one while it is tried whether the endpoint recovered."""
        if self.breaker.closed:
            return 1 if self.pace.trial else self.limit.value
        return 1 if self._may_probe() else 0

    def _may_probe(self) -> bool:
        return self.breaker.probing(self._now())

    def _pass_gates(self, now: float, messages: int, lease: Lease) -> None:
        for _ in range(0 if self.pace.is_free else messages):
            self.pace.take(now)
        for limiter in (self.limiter, self.queue.limiter):
            if limiter is not None:
                limiter.take(messages)
        for quota in (self.quota, self.queue.quota):
            if quota is not None:
                quota.take(messages)
                lease.end_by(quota.ends)

    def _send(self, lease: Lease, indices: Sequence[int], began: float) -> None:
        """Hand messages to the sender, after the first look at whether they may start."""
        phones, all_may, send = lease.batch.recipients.phones, lease.allows_all(began), self._sender.send
        for index in indices:
            phone = phones[index]
            if phone is None or not (all_may or lease.allows(index, began)):
                self._withhold(lease, index, began)
                continue
            self.in_flight += 1
            message = InFlight(self, lease, index, phone, began)
            try:
                send(message)
            except Exception:
                # A defect in a sender must not lose a message: it may have been sent.
                log.exception("the sender failed")
                message.answered(Answer(0, b"", None, ErrorClass.PROTOCOL, True, self._now() - began))

    def _judge(self, answered: Sequence[InFlight]) -> None:
        """Record what became of messages, and draw the conclusions: of those delivered in a row together."""
        delivered, seconds, in_flight = 0, 0.0, self.in_flight
        self.in_flight -= len(answered)
        for message in answered:
            if (answer := message.answer) is None:
                self._withhold(message.lease, message.index, message.began)
                continue
            try:
                verdict = self._verdict_of(answer)
                if verdict.delivered and self.breaker.counts(message.began):
                    delivered += 1
                    seconds += answer.duration
                    self._record(message.lease, message.index, policy.delivered(answer, verdict.provider_id))
                    continue
                if delivered:
                    self._learn_delivered(delivered, seconds, in_flight)
                    delivered, seconds = 0, 0.0
                self._judge_alone(message, answer, verdict, in_flight)
            except Exception:
                # A defect must neither lose the other answers nor hold the batch for ever.
                log.exception("an answer could not be judged")
                if message.lease.outcomes[message.index] is None:
                    self._record(message.lease, message.index, policy.UNJUDGED)
        if delivered:
            self._learn_delivered(delivered, seconds, in_flight)

    def _judge_alone(self, message: InFlight, answer: Answer, verdict: Verdict, in_flight: int) -> None:
        """Draw the conclusions of an answer that is not one of many good ones, and record what became of it."""
        lease, index, began = message.lease, message.index, message.began
        if verdict.excerpt:  # it is stored, shown and logged
            verdict = verdict._replace(excerpt=self._excerpts.of(answer.body, message.phone, message.values))
        self._learn(began, answer, verdict, lease.batch.recipients.client_ids[index], in_flight)
        if verdict.delivered:
            outcome = policy.delivered(answer, verdict.provider_id)
        else:
            outcome = self._failed(lease, index, began, answer, verdict)
        self._record(lease, index, outcome)

    def _learn_delivered(self, messages: int, seconds: float, in_flight: int) -> None:
        """Draw the conclusions of messages that were delivered in `seconds` altogether; the breaker is closed."""
        now = self._now()
        self.limit.observe(now, seconds, ErrorClass.NONE, in_flight, messages)
        self.pace.accepted(now, messages)
        self.refusals.succeeded()
        self.breaker.succeeded(now, messages)

    def _failed(self, lease: Lease, index: int, began: float, answer: Answer, verdict: Verdict) -> Outcome:
        """Return what to record of a failed attempt: a refusal may speak of us, or of this message alone."""
        recipient = lease.batch.recipients[index]
        suspension, excused = self.breaker.suspension, False
        if suspension is Suspension.NONE:
            if verdict.error_class is ErrorClass.CREDENTIALS and recipient.attempts >= TRIES:
                verdict = verdict._replace(retryable=False)  # others are accepted
        elif suspension is not Suspension.CREDENTIALS:
            excused = self.refusals.is_excused(_refusal(answer, verdict))
        return policy.failed(
            lease.mailing, recipient, answer, verdict, lease.now_at(began), self._random, excused=excused
        )

    def _learn(self, began: float, answer: Answer, verdict: Verdict, client_id: int, in_flight: int) -> None:
        """Draw the conclusions of an answer for what is sent next."""
        now = began + answer.duration
        self.limit.observe(now, answer.duration, verdict.error_class, in_flight)
        self._learn_pace(now, began, verdict)
        failed = verdict.error_class in policy.DOWN
        suspension = self._learn_refusal(began, answer, verdict, client_id)
        if failed or suspension:
            words = error_words(verdict.error_class.name, answer.status, verdict.endpoint_code)
            self.last_error = f"{words}: {verdict.excerpt[:80]}".removesuffix(": ")
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

    def _withhold(self, lease: Lease, index: int, began: float) -> None:
        """Put back a message that was not begun: until its mailing is confirmed, or for the next lease."""
        for quota in (self.quota, self.queue.quotas.get(lease.mailing.id)):
            if quota is not None:
                quota.put_back(began)
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
        """Begin nothing more; requests under way are cut off, and nothing is recorded of them."""
        self._closed = True
        await self._sender.close()


def _refusal(answer: Answer, verdict: Verdict) -> Refusal:
    return Refusal(verdict.error_class, answer.status, verdict.endpoint_code)
