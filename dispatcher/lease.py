"""A claimed batch while this replica works on it, and the book of all of them.

A lease counts down on the monotonic clock from before the database was asked, so what it
believes of the database's time is never early: no request starts after the lease, the
client's window or the mailing's end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta

from dispatcher import policy
from dispatcher.model import ClaimedBatch, Mailing, Outcome, Status
from dispatcher.ports import Settled


class Lease:
    """The messages of one claimed batch, and what became of each so far.

    `asked` is the monotonic time before the claim; no request starts after `send_until` (or
    after the recipient's window closed) or once it is `revoked`.
    """

    __slots__ = (
        "_next",
        "asked",
        "batch",
        "left",
        "mailing",
        "outcomes",
        "revoked",
        "saved",
        "send_until",
        "waiting",
        "writing",
    )

    def __init__(self, batch: ClaimedBatch, mailing: Mailing, asked: float, sending: float) -> None:
        """`sending` is how many seconds after `asked` requests may still start."""
        self.batch = batch
        self.mailing = mailing
        self.asked = asked
        self.send_until = asked + sending
        if mailing.ends_at is not None:
            left = (mailing.ends_at - batch.claimed_at).total_seconds()
            self.send_until = min(self.send_until, asked + left)
        self.outcomes: list[Outcome | None] = [None] * len(batch.recipients)
        self.saved = bytearray(len(batch.recipients))
        self.left = len(batch.recipients)
        self.revoked = False
        self.waiting = False
        self.writing = False
        self._next = 0

    def resolve_unsendable(self) -> None:
        """Records every message that is not to be sent at all, before any is."""
        for index, recipient in enumerate(self.batch.recipients):
            outcome = policy.without_sending(self.mailing, recipient, self.batch.retaken, self.batch.claimed_at)
            if outcome is not None:
                self.record(index, outcome)

    def take(self) -> int:
        """Returns the index of the next message to send, -1 when all are taken."""
        index = self._next
        end = len(self.outcomes)
        while index < end and self.outcomes[index] is not None:
            index += 1
        self._next = index + 1
        return index if index < end else -1

    @property
    def untaken(self) -> int:
        """How many messages at most nobody has begun to send."""
        return max(0, len(self.outcomes) - self._next)

    def record(self, index: int, outcome: Outcome) -> None:
        """Notes what became of a message; each is recorded once."""
        self.outcomes[index] = outcome
        self.left -= 1

    def now_at(self, monotonic: float) -> datetime:
        """Returns the time by the database's clock, or a little later."""
        return self.batch.claimed_at + timedelta(seconds=monotonic - self.asked)

    def release(self, mailing: Mailing, monotonic: float) -> bool:
        """Gives up at once what nobody has begun to send; returns whether nothing else is under way.

        `mailing` is its present definition: one that is over ends its messages, otherwise they
        are put off, all to one time, so that they become one batch.
        """
        self.revoked = True
        before = self.left
        now_at = self.now_at(monotonic)
        put_off = policy.put_off(self.batch.claimed_at)
        while (index := self.take()) >= 0:
            recipient = self.batch.recipients[index]
            self.record(index, policy.without_sending(mailing, recipient, False, now_at) or put_off)
        return self.left == 0 and before > 0

    def unsaved(self) -> tuple[list[Settled], list[int]]:
        """Returns what is to be written now, by ascending client id, and their indices.

        Before all is done only terminal outcomes: a message that stays pending belongs to
        this batch until the batch is closed.
        """
        done = self.left == 0
        indices = [
            index
            for index, outcome in enumerate(self.outcomes)
            if outcome is not None and not self.saved[index] and (done or outcome.status is not Status.PENDING)
        ]
        recipients = self.batch.recipients
        settled = [
            (recipients[index].client_id, recipients[index].attempts, outcome)
            for index in indices
            if (outcome := self.outcomes[index]) is not None
        ]
        return settled, indices


class Book:
    """All leases this replica holds."""

    def __init__(self) -> None:
        self.leases: set[Lease] = set()
        self.by_mailing: Counter[int] = Counter()
        self._changed = asyncio.Event()

    def add(self, lease: Lease) -> None:
        """Enters a lease."""
        self.leases.add(lease)
        self.by_mailing[lease.mailing.id] += 1

    def remove(self, lease: Lease) -> None:
        """Strikes a lease that is settled or lost."""
        self.leases.discard(lease)
        self.by_mailing[lease.mailing.id] -= 1
        if not self.by_mailing[lease.mailing.id]:
            del self.by_mailing[lease.mailing.id]
        self._changed.set()

    async def changed(self) -> None:
        """Returns when a lease has been struck since the last call."""
        await self._changed.wait()
        self._changed.clear()
