"""A claimed batch while this replica works on it, and the registry of all of them.

A lease counts down on the monotonic clock from before the database was asked, so what it
believes of the database's time is never early: no request starts after the lease, the
client's window or the mailing's end, nor when the mailing was last confirmed to be unchanged
too long ago, nor to a client that was changed since the claim.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence, Set
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from dispatcher import retry_policy as policy
from dispatcher.model.batches import ClaimedBatch
from dispatcher.model.mailings import Mailing
from dispatcher.model.outcomes import Outcome, Settlement
from dispatcher.model.states import Reason, Status
from dispatcher.refusals import Refusal

FRESH_FOR = 0.9
"""Seconds for which a mailing and its clients count as being as they were last seen in the database.

So nothing of a mailing starts a second after it was paused or cancelled, and nothing to a client a
second after they opted out, even where a replica has lost its database.
"""

_KEPT = policy.unsent(Status.PENDING, Reason.NONE)
"""Stands for the outcome of a message that stays in its batch, for the next holder."""


class LeaseTerms(NamedTuple):
    """For how many seconds a batch is leased, and in how many of them its requests may start."""

    length: float
    sending: float


class Lease:
    """The messages of one claimed batch, and what became of each so far.

    `asked` is the monotonic time before the claim, `held_until` when the lease is over. No request
    starts after `send_until`, `fresh_until` (all monotonic) or the end of the recipient's window,
    or once it is `revoked`. Its outcomes are not written before `settle_at`, which is set when that
    failed, `postponed` times in a row. `change_no` is the last change of clients that was looked at for it.
    """

    __slots__ = (
        "_all_until",
        "_closes_in",
        "_keeps",
        "_next",
        "_returned",
        "_saved",
        "_unanswered",
        "_withdrawn",
        "asked",
        "batch",
        "change_no",
        "fresh_until",
        "held_until",
        "left",
        "mailing",
        "now",
        "outcomes",
        "postponed",
        "revoked",
        "send_until",
        "settle_at",
        "waiting",
        "writing",
    )

    def __init__(
        self, batch: ClaimedBatch, mailing: Mailing, asked: float, terms: LeaseTerms, now: Callable[[], float]
    ) -> None:
        """Begin; `now` is the monotonic clock."""
        self.batch = batch
        self.change_no = batch.change_no
        self.mailing = mailing
        self.asked = asked
        self.held_until = asked + terms.length
        self.send_until = asked + terms.sending
        if mailing.ends_at is not None:
            left = (mailing.ends_at - batch.claimed_at).total_seconds()
            self.send_until = min(self.send_until, asked + left)
        self.fresh_until = asked + FRESH_FOR
        self.outcomes: list[Outcome | None] = [None] * len(batch.recipients)
        self.left = len(batch.recipients)
        self.revoked = False
        self.waiting = False
        self.writing = False
        self.settle_at = asked
        self.postponed = 0
        self.now = now
        self._keeps = False
        self._closes_in = batch.recipients.closes_in
        closing = [seconds for seconds in self._closes_in if seconds is not None]
        self._all_until = min(self.send_until, asked + min(closing)) if closing else self.send_until
        self._saved = bytearray(len(batch.recipients))
        self._unanswered: tuple[Settlement, Sequence[int]] | None = None
        self._next = 0
        self._returned: list[int] = []
        self._withdrawn: set[int] = set()

    def resolve_unsendable(self) -> None:
        """Record every message that is not to be sent at all, before any is."""
        batch = self.batch
        if policy.are_all_sent(self.mailing, batch.recipients, batch.reclaimed, batch.claimed_at):
            return
        for index, recipient in enumerate(batch.recipients):
            outcome = policy.without_sending(self.mailing, recipient, batch.reclaimed, batch.claimed_at)
            if outcome is not None:
                self.record(index, outcome)
        self._skip_decided()

    def take(self, most: int = 1) -> list[int]:
        """Return the indices of the next messages to send, at most so many; none when all are taken."""
        if self._returned:
            taken = self._returned[-most:]
            del self._returned[-most:]
            return taken
        first, outcomes = self._next, self.outcomes
        self._next = min(first + most, len(outcomes))
        taken = [index for index in range(first, self._next) if outcomes[index] is None]
        self._skip_decided()
        return taken

    def _skip_decided(self) -> None:
        """Let the next message be one without an outcome, so that none seems to wait where none does."""
        index, outcomes = self._next, self.outcomes
        end = len(outcomes)
        while index < end and outcomes[index] is not None:
            index += 1
        self._next = index

    def give_back(self, index: int) -> None:
        """Take back a message that was not begun after all."""
        self._returned.append(index)

    @property
    def untaken(self) -> int:
        """How many messages at most nobody has begun to send."""
        return max(0, len(self.outcomes) - self._next) + len(self._returned)

    def is_ready(self, now: float) -> bool:
        """Return whether there is a message that nobody has begun to send, and the lease is not stale."""
        return (self._next < len(self.outcomes) or bool(self._returned)) and not self.is_stale(now)

    def allows_all(self, now: float) -> bool:
        """Return whether the requests of all its messages may start `now`, which is quickly seen."""
        return now < self.fresh_until and now < self._all_until and not self.revoked and not self._withdrawn

    def allows(self, index: int, now: float) -> bool:
        """Return whether the request of a message may start `now`."""
        closes_in = self._closes_in[index]
        return (
            now < self.fresh_until
            and now < self.send_until
            and not self.revoked
            and index not in self._withdrawn
            and (closes_in is None or now < self.asked + closes_in)
        )

    def confirm(self, asked: float) -> None:
        """Note that the mailing was as it is known when the database was `asked` (monotonic)."""
        self.fresh_until = max(self.fresh_until, asked + FRESH_FOR)

    def end_by(self, moment: float) -> None:
        """Let no request start after `moment` (monotonic)."""
        if moment < self.send_until:
            self.send_until = moment
            self._all_until = min(self._all_until, moment)

    def can_wait(self, index: int, now: float) -> bool:
        """Return whether a message that was not begun may still be, once the lease is confirmed."""
        return self.is_stale(now) and index not in self._withdrawn

    def is_stale(self, now: float) -> bool:
        """Return whether it has not been confirmed for too long, though it still stands."""
        return now >= self.fresh_until and now < self.send_until and not self.revoked

    def record(self, index: int, outcome: Outcome) -> None:
        """Note what became of a message; each is recorded once."""
        self.outcomes[index] = outcome
        self.left -= 1

    def keep(self, index: int) -> None:
        """Note that a message stays in its batch: it was not sent, and may be later."""
        self._keeps = True
        self.record(index, _KEPT)

    def withdraw(self, clients: Set[int]) -> bool:
        """Keep what was not begun for these clients, so that its next holder judges it anew.

        What waits for a connection does not start any more. Return whether nothing else is under way.
        """
        before = self.left
        for index, client_id in enumerate(self.batch.recipients.client_ids):
            if client_id not in clients or self.outcomes[index] is not None:
                continue
            if index in self._returned:
                self._returned.remove(index)
                self.keep(index)
            elif index >= self._next:
                self.keep(index)
            else:
                self._withdrawn.add(index)
        self._skip_decided()
        return self.left == 0 and before > 0

    def now_at(self, monotonic: float) -> datetime:
        """Return the time by the database's clock, or a little later."""
        return self.batch.claimed_at + timedelta(seconds=monotonic - self.asked)

    def release(self, mailing: Mailing) -> bool:
        """Give up at once what nobody has begun to send; return whether nothing else is under way.

        `mailing` is its present definition: one that is over ends its messages, otherwise they
        stay in the batch for its next holder.
        """
        self.revoked = True
        before = self.left
        now_at = self.now_at(self.now())
        while untaken := self.take(len(self.outcomes)):
            for index in untaken:
                outcome = policy.without_sending(mailing, self.batch.recipients[index], self.batch.reclaimed, now_at)
                if outcome is None:
                    self.keep(index)
                else:
                    self.record(index, outcome)
        return self.left == 0 and before > 0

    def keep_untaken(self) -> bool:
        """Leave in the batch what nobody has begun to send; return whether nothing else is under way."""
        before = self.left
        while untaken := self.take(len(self.outcomes)):
            for index in untaken:
                self.keep(index)
        return self.left == 0 and before > 0

    def excuse(self, since: float, kind: Refusal) -> None:
        """Take back the refusals of this kind after `since` (monotonic), as far as nobody was asked to write them."""
        since_at = self.now_at(since)
        fixed = set(self._unanswered[1]) if self._unanswered else set()
        for index, outcome in enumerate(self.outcomes):
            if outcome is None or outcome.reason is not Reason.REFUSED or self._saved[index] or index in fixed:
                continue
            failure = outcome.failure
            if failure is not None and failure.at >= since_at:
                refusal = Refusal(failure.error_class, outcome.endpoint_status or 0, outcome.endpoint_code)
                if refusal == kind:
                    self.outcomes[index] = policy.excused(self.mailing, self.batch.recipients[index], outcome)

    def settlement(self) -> Settlement | None:
        """Return what is to be written now, None for nothing.

        One whose write was not answered comes again as it was: it may have taken effect.
        """
        if self._unanswered is None:
            self._unanswered = self._collect()
        return self._unanswered[0] if self._unanswered else None

    def written(self) -> None:
        """Note that the settlement returned last was answered."""
        if self._unanswered is not None:
            for index in self._unanswered[1]:
                self._saved[index] = 1
            self._unanswered = None
        self.postponed = 0

    def postpone(self, now: float, shortest: float, longest: float) -> None:
        """Let the outcomes wait, each time twice as long: they could not be written."""
        self.settle_at = now + min(shortest * 2 ** min(self.postponed, 20), longest)
        self.postponed += 1

    def leave_details_out(self) -> None:
        """Let the settlement returned last come again without anything that the endpoint had a say in."""
        if self._unanswered is not None:
            settlement, indices = self._unanswered
            self._unanswered = settlement.without_details(), indices

    def _collect(self) -> tuple[Settlement, Sequence[int]] | None:
        """Return the unsaved outcomes by ascending client id, and their indices.

        Before all is done only terminal outcomes: a message that stays pending belongs to
        this batch until the batch is closed.
        """
        done = self.left == 0
        if done and not self.kept and not any(self._saved):
            indices: Sequence[int] = range(len(self.outcomes))
        else:
            indices = [index for index, outcome in enumerate(self.outcomes) if self._is_due(index, outcome, done)]
        if not indices and not done:
            return None
        return self._settlement(indices, done), indices

    def _is_due(self, index: int, outcome: Outcome | None, done: bool) -> bool:
        """Return whether an outcome is to be written now."""
        if outcome is None or outcome is _KEPT or self._saved[index]:
            return False
        return done or outcome.status is not Status.PENDING

    def _settlement(self, indices: Sequence[int], done: bool) -> Settlement:
        recipients, endpoint, kept = self.batch.recipients, self.mailing.endpoint, self.kept if done else ()
        client_ids, attempts, outcomes = recipients.client_ids, recipients.attempts, tuple(self.outcomes)
        if len(indices) < len(outcomes):
            client_ids = tuple([client_ids[index] for index in indices])
            attempts = tuple([attempts[index] for index in indices])
            outcomes = tuple([outcomes[index] for index in indices])
        recorded = cast("tuple[Outcome, ...]", outcomes)  # each of them has one
        return Settlement(self.batch, endpoint, client_ids, attempts, recorded, done, kept)

    def undecided(self) -> list[int]:
        """Return the clients of whose messages nothing has become so far."""
        pairs = zip(self.batch.recipients.client_ids, self.outcomes, strict=True)
        return [client_id for client_id, outcome in pairs if outcome is None]

    @property
    def kept(self) -> list[int]:
        """The clients whose messages stay in the batch, ascending."""
        pairs = zip(self.batch.recipients.client_ids, self.outcomes, strict=True)
        return [client_id for client_id, outcome in pairs if outcome is _KEPT] if self._keeps else []


class LeaseRegistry:
    """All leases this replica holds, and those of them that wait to be settled.

    `claimed` and `lost` count the batches it ever took, and those that others took over before
    their outcomes were recorded.
    """

    def __init__(self) -> None:
        self.leases: set[Lease] = set()
        self.by_mailing: Counter[int] = Counter()
        self.claimed = 0
        self.lost = 0
        self._to_settle: asyncio.Queue[Lease] = asyncio.Queue()
        self._changed = asyncio.Event()

    @property
    def unsettled(self) -> int:
        """How many leases have every outcome and are not written yet, but for those that could not be."""
        return sum(not lease.left and not lease.postponed for lease in self.leases)

    @property
    def batch_numbers(self) -> list[int]:
        """The batches whose outcomes this replica holds."""
        return [lease.batch.no for lease in self.leases]

    def add(self, lease: Lease) -> None:
        """Add a lease that was just claimed."""
        self.leases.add(lease)
        self.claimed += 1
        self.by_mailing[lease.mailing.id] += 1

    def settle_soon(self, lease: Lease) -> None:
        """Ask for the lease's unsaved outcomes to be written."""
        if not lease.waiting:
            lease.waiting = True
            self._to_settle.put_nowait(lease)

    async def next_to_settle(self) -> Lease:
        """Return the next lease whose outcomes are to be written."""
        return await self._to_settle.get()

    def remove(self, lease: Lease) -> None:
        """Remove a lease that is settled or lost."""
        lease.revoked = True
        self.leases.discard(lease)
        self.by_mailing[lease.mailing.id] -= 1
        if not self.by_mailing[lease.mailing.id]:
            del self.by_mailing[lease.mailing.id]
        self._changed.set()

    async def changed(self) -> None:
        """Return when a lease has been removed since the last call."""
        await self._changed.wait()
        self._changed.clear()
