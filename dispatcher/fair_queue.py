"""Which message leaves next: the leases of one pool, by mailing.

The highest priority comes first; mailings of one priority take turns, so that a huge one does
not hold up a small one. Every tenth choice ignores priorities, so that none starves. A mailing
with a rate is passed over until its limiter lets a message go. Pure but for the leases it holds.
"""

from __future__ import annotations

from collections import deque

from dispatcher.day_quota import DayQuota
from dispatcher.leases import Lease
from dispatcher.model.mailings import Mailing
from dispatcher.rate_limiter import RateLimiter

QUANTUM = 8
"""Messages that leave in a row before the next mailing has its turn."""

EQUAL_TURN = 10
"""Every how many choices priorities are left aside."""


class MailingQueue:
    """The leases of one mailing, the oldest first.

    `limiter` is set where the mailing has a rate, `quota` where it has one a day.
    """

    def __init__(self, lease: Lease, quota: DayQuota | None = None) -> None:
        self.quota = quota
        self.mailing_id = lease.mailing.id
        self.priority = lease.mailing.priority
        self.leases = deque([lease])
        rate = lease.mailing.max_rate
        self.limiter = RateLimiter(f"mailing/{self.mailing_id}", rate) if rate > 0 else None

    @property
    def waiting(self) -> int:
        """How many messages nobody has begun to send."""
        return sum(lease.untaken for lease in self.leases)

    @property
    def is_free(self) -> bool:
        """Whether it has neither a rate nor a quota."""
        return self.limiter is None and self.quota is None

    def ready(self, now: float, most: int) -> int:
        """Return how many messages rate and quota let begin now, at most `most`."""
        for gate in (self.limiter, self.quota):
            if gate is not None:
                most = min(most, gate.ready(now))
        return most

    def follow(self, lease: Lease, quota: DayQuota | None = None) -> None:
        """Take over what a newer lease says of the mailing, and the lease."""
        self.quota = quota
        self.priority, rate = lease.mailing.priority, lease.mailing.max_rate
        if rate <= 0:
            self.limiter = None
        elif self.limiter is None:
            self.limiter = RateLimiter(f"mailing/{self.mailing_id}", rate)
        else:
            self.limiter.rate = rate
        self.leases.append(lease)

    def front(self, now: float) -> Lease | None:
        """Return the first lease with a message that may be begun now."""
        if self.limiter is not None and not self.limiter.open(now):
            return None
        if self.quota is not None and not self.quota.ready(now):
            return None
        for lease in self.leases:
            if lease.is_ready(now):
                return lease
        return None


class FairQueue:
    """All leases of a pool that still have messages to begin."""

    def __init__(self) -> None:
        self.queues: dict[int, MailingQueue] = {}
        self.quotas: dict[int, DayQuota] = {}
        self._current: MailingQueue | None = None
        self._row = 0
        self._choices = 0

    def __bool__(self) -> bool:
        return bool(self.queues)

    @property
    def waiting(self) -> int:
        """How many messages nobody has begun to send."""
        return sum(queue.waiting for queue in self.queues.values())

    @property
    def leases(self) -> int:
        """How many leases there are."""
        return sum(len(queue.leases) for queue in self.queues.values())

    @property
    def limiter(self) -> RateLimiter | None:
        """The limiter of the mailing whose turn it is."""
        return self._current.limiter if self._current is not None else None

    @property
    def quota(self) -> DayQuota | None:
        """The quota of the mailing whose turn it is."""
        return self._current.quota if self._current is not None else None

    def without_rate(self) -> tuple[int, int]:
        """Return the leases, and the messages nobody has begun to send, of mailings without a rate."""
        queues = [queue for queue in self.queues.values() if queue.is_free]
        return sum(len(queue.leases) for queue in queues), sum(queue.waiting for queue in queues)

    def startable(self, now: float) -> int:
        """Return how many messages the rates of their mailings let begin now."""
        return sum(queue.ready(now, queue.waiting) for queue in self.queues.values())

    def add(self, lease: Lease) -> None:
        """Take in a lease."""
        queue, quota = self.queues.get(lease.mailing.id), self._quota_of(lease.mailing)
        if queue is None:
            self.queues[lease.mailing.id] = MailingQueue(lease, quota)
        else:
            queue.follow(lease, quota)

    def _quota_of(self, mailing: Mailing) -> DayQuota | None:
        """Return the quota of a mailing, which outlives its leases: that a day is full stays known."""
        if mailing.day_limit is None:
            if (left := self.quotas.get(mailing.id)) is not None:
                left.give_up()
            return None
        quota = self.quotas.get(mailing.id)
        if quota is None:
            quota = self.quotas[mailing.id] = DayQuota(f"mailing/{mailing.id}", mailing.day_limit)
        quota.follow(mailing.day_limit)
        return quota

    def restore(self, lease: Lease) -> None:
        """Take back a lease of which a message was given back."""
        queue = self.queues.get(lease.mailing.id)
        if queue is None or lease not in queue.leases:
            self.add(lease)

    def tidy(self) -> None:
        """Forget the leases of which every message was begun."""
        for mailing_id, queue in list(self.queues.items()):
            if not all(lease.untaken for lease in queue.leases):
                queue.leases = deque(lease for lease in queue.leases if lease.untaken)
            if not queue.leases:
                del self.queues[mailing_id]

    def next(self, now: float, most: int = 1) -> tuple[Lease | None, int]:
        """Return the lease whose messages leave next, and how many of them may in a row, at most `most`.

        There is none when no message may leave now.
        """
        current, lease = self._current, None
        if current is not None and self._row < QUANTUM and self.queues.get(current.mailing_id) is current:
            lease = current.front(now)
        if lease is None:
            lease = self._choose(now)
        if lease is None or self._current is None:
            return None, 0
        count = most if len(self.queues) == 1 else min(most, QUANTUM - self._row)
        count = self._current.ready(now, count)
        self._row += count
        return lease, count

    def _choose(self, now: float) -> Lease | None:
        """Give the turn to the next mailing that has something to send."""
        self._choices += 1
        equal = self._choices % EQUAL_TURN == 0
        best: tuple[MailingQueue, Lease] | None = None
        for queue in self.queues.values():
            if best is None or (not equal and queue.priority > best[0].priority):
                lease = queue.front(now)
                if lease is not None:
                    best = queue, lease
        if best is None:
            self._current = None
            return None
        self._current, lease = best
        self._row = 0
        # To the end of the line.
        self.queues[self._current.mailing_id] = self.queues.pop(self._current.mailing_id)
        return lease
