"""The model database: what the statements of the dispatcher do, each at one moment.

It keeps to the SQL of the dispatcher statement by statement and is as short as a database
without concurrency can be: here a statement happens all at once, when it commits. `now` is
when its transaction began. What is promised of the result is checked elsewhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from dispatcher.model.batches import ClaimedBatch, OpenWork, Recipient, Recipients
from dispatcher.model.mailings import AudienceFilter, Expansion, Mailing, PollResult, Step
from dispatcher.model.outcomes import Outcome, Settlement
from dispatcher.model.states import AudienceMode, MailingState, Reason, Status
from dispatcher.ports import Render
from tests.simulation.limits import Limits
from tests.simulation.rows import (
    BUCKETS,
    EVERYBODY,
    BatchRow,
    BlockRow,
    Client,
    ClientState,
    Definition,
    ExpansionRow,
    MailingRow,
    MessageRow,
    Place,
    Stamped,
)
from tests.simulation.timetables import NEVER, Timetable
from tests.simulation.world import EPOCH, World


class Claimed(NamedTuple):
    """What a claim returns of a batch."""

    no: int
    fence: int
    client_ids: list[int]
    reclaimed: bool
    claimed_at: datetime
    change_no: int
    fresh: bool


class Zones(NamedTuple):
    """How far the last clock of the world is behind, and after how long a waiting mailing is looked at again."""

    behind: timedelta = timedelta(seconds=12.5)
    look_again: timedelta = timedelta(seconds=5)


_LONG_AGO = EPOCH - timedelta(days=1)
_KEPT_FOR = timedelta(minutes=1)
_SOON = timedelta(seconds=1)
_RUNNING, _PAUSED = MailingState.RUNNING, MailingState.PAUSED
_UNSENT = (Status.EXPIRED, Status.CANCELLED, Status.SKIPPED)


class Database:
    """The tables. `batch_size` makes batches smaller than the dispatcher would have them."""

    def __init__(self, world: World, batch_size: int) -> None:
        self.world = world
        self.clients: dict[int, Client] = {}
        self.mailings: dict[int, MailingRow] = {}
        self.expansions: dict[tuple[int, int], ExpansionRow] = {}
        self.batches: dict[int, BatchRow] = {}
        self.blocks: list[BlockRow] = []
        self.messages: dict[tuple[int, int], MessageRow] = {}
        self.counts: Counter[tuple[int, Status]] = Counter()
        self.attempts: Counter[int] = Counter()
        self.changes: dict[int, list[tuple[int, list[int], datetime]]] = {bucket: [] for bucket in range(BUCKETS)}
        self.histories: dict[int, list[ClientState]] = defaultdict(list)
        self.change_seq: Counter[int] = Counter()
        self.ends_of_leases: dict[tuple[int, int], str] = {}
        self.limits = Limits(world)
        self.zones = Zones()
        self._batch_size = batch_size
        self._batch_no = 0

    # The planner's statements.

    def poll(self, now: datetime) -> PollResult:
        mailings = list(self.mailings.values())
        due = [b for b in self.batches.values() if b.due_at <= now and self._sends(self.mailings[b.mailing_id], now)]
        moments = [b.due_at for b in self.batches.values() if b.due_at > now]
        moments += [b.lease_until for b in due if b.lease_until > now]
        moments += [m.starts_at for m in mailings if m.state is MailingState.SCHEDULED]
        moments += [m.ends_at for m in mailings if m.state in (_RUNNING, _PAUSED) and m.ends_at and m.ends_at > now]
        moments += [m.recheck_at for m in mailings if m.state is _RUNNING and m.recheck_at and m.recheck_at > now]
        return PollResult(
            starts=any(m.state is MailingState.SCHEDULED and m.starts_at <= now for m in mailings),
            expands=any(not e.finished and self.mailings[e.mailing_id].state is _RUNNING for e in self._expanding()),
            rechecks=any(m.state is _RUNNING and _is_recheck_due(m, now) for m in mailings),
            ends=any(m.state in (_RUNNING, _PAUSED) and m.is_over(now) for m in mailings),
            running=any(m.state is _RUNNING for m in mailings),
            claims=any(b.lease_until <= now for b in due),
            next_in=(min(moments) - self.world.now_at).total_seconds() if moments else None,
        )

    def _expanding(self) -> list[ExpansionRow]:
        return [e for e in self.expansions.values() if not e.finished]

    def _sends(self, mailing: MailingRow, now: datetime) -> bool:
        return mailing.state in (_RUNNING, MailingState.CANCELLED) or mailing.is_over(now)

    def start_due(self, now: datetime) -> list[int]:
        due = [m for m in self.mailings.values() if m.state is MailingState.SCHEDULED and m.starts_at <= now]
        due = [m for m in due if m.timetable.local_start is None or self._begins(m, now)]
        for mailing in due:
            mailing.state = _RUNNING
            self.begin_expansion(mailing, now)
        return [mailing.id for mailing in due]

    def _begins(self, mailing: MailingRow, now: datetime) -> bool:
        """Find out when the first clock of the audience shows the local start, and return whether that has come."""
        wanted = [c for c in self.clients.values() if c.tag == mailing.tag and not c.opted_out]
        begins = [begin for client in wanted if (begin := mailing.timetable.starts_at(client))]
        last = EPOCH + timedelta(seconds=mailing.timetable.local_start or 0.0) + self.zones.behind
        mailing.begins_at = min(begins) if begins else now if last <= now else None
        end = NEVER if mailing.ends_at is None else mailing.ends_at - timedelta(microseconds=1)
        mailing.starts_at = min(mailing.begins_at or NEVER, now + self.zones.look_again, end)
        begun = mailing.begins_at is not None and mailing.begins_at <= now
        return mailing.starts_at <= now and (begun or mailing.is_over(now))

    def begin_expansion(self, mailing: MailingRow, now: datetime) -> None:
        for bucket in range(BUCKETS):
            row = ExpansionRow(bucket, mailing.id, self.change_seq[bucket], now)
            self.expansions.setdefault((bucket, mailing.id), row)

    def expand_anew(self, mailing: MailingRow) -> None:
        """Begin another pass over all clients, at a position that no step under way can know."""
        for row in self.expansions.values():
            if row.mailing_id == mailing.id:
                row.last_client_id, row.finished = -mailing.version, False
                row.change_seq = self.change_seq[row.bucket]

    def expandable(self, most: int, now: datetime) -> list[Expansion]:
        found = []
        for mailing in self.mailings.values():
            rows = [e for e in self._expanding() if e.mailing_id == mailing.id]
            over = mailing.is_over(now)
            if rows and (mailing.state is _RUNNING or (mailing.state is _PAUSED and over)):
                positions = {e.bucket: e.last_client_id for e in rows}
                open_batches = sum(b.mailing_id == mailing.id and b.due_at <= now for b in self.batches.values())
                found.append(_expansion(mailing, positions, open_batches, over))
        return sorted(
            found,
            key=lambda e: (e.open_batches >= most, -self.mailings[e.mailing_id].priority, e.open_batches, e.mailing_id),
        )

    def expand(self, expansion: Expansion, bucket: int, batch_size: int, limit: int, now: datetime) -> Step:
        position = expansion.positions[bucket]
        row = self.expansions.get((bucket, expansion.mailing_id))
        mailing = self._as_known(expansion)
        if row is None or mailing is None or row.finished or row.last_client_id != position:
            return Step(False, 0, 0, position, False)
        if mailing.state not in (_RUNNING, _PAUSED):
            return Step(False, 0, 0, position, False)
        limit = min(limit, 2 * self._batch_size)
        ids = sorted(i for i, c in self.clients.items() if c.bucket == bucket and i > position)[:limit]
        chosen = [self.clients[i] for i in ids]
        if mailing.audience is AudienceMode.SNAPSHOT:
            chosen = [client for client in chosen if client.created_at <= row.started_at]
        inserted = self._take_in(mailing, chosen, batch_size, row.reached, now)
        row.last_client_id = max([position, *ids])
        row.finished = len(ids) < limit
        row.reached = EVERYBODY if row.finished else max(row.reached, *ids)
        return Step(True, len(ids), inserted, row.last_client_id, row.finished)

    def _as_known(self, expansion: Expansion) -> MailingRow | None:
        mailing = self.mailings.get(expansion.mailing_id)
        return mailing if mailing is not None and mailing.version == expansion.version else None

    def _take_in(self, mailing: MailingRow, clients: list[Client], batch_size: int, reached: int, now: datetime) -> int:
        made = []
        for client in clients:
            is_in = client.id <= reached and (mailing.id, client.id) in self.messages
            if client.opted_out or client.tag != mailing.tag or is_in:
                continue
            assert (mailing.id, client.id) not in self.messages, "a client is taken in twice"
            message = MessageRow(mailing.id, client.id, client.opens_at(now), created_at=now)
            self.messages[mailing.id, client.id] = message
            made.append(message)
            message.due_at, message.reason = self._first_departure(mailing, client, now)
            message.status = Status.EXPIRED if message.reason else Status.PENDING
            self.counts[mailing.id, message.status] += 1
        pending = [message for message in made if message.status is Status.PENDING]
        for due_at in sorted({message.due_at for message in made}):
            ids = [message.client_id for message in pending if message.due_at == due_at]
            self.open_batches(mailing.id, ids, due_at, batch_size, now)
            late = [message for message in made if message.due_at == due_at and message not in pending]
            for reason in dict.fromkeys(message.reason for message in late):
                alike, size = [m for m in late if m.reason is reason], min(batch_size, self._batch_size)
                for first in range(0, len(alike), size):
                    self._close(alike[first : first + size], due_at, now)
        return len(made)

    def _first_departure(self, mailing: MailingRow, client: Client, now: datetime) -> tuple[datetime, Reason]:
        """Return when a message is due that is taken in now, and the reason why it never leaves."""
        ends_at = mailing.ends_at
        if mailing.timetable:
            opens_at, _, reason = mailing.timetable.departure(client, ends_at, mailing.due_since(now), now)
            return opens_at, reason
        opens_at = client.opens_at(now)
        if ends_at is None or opens_at < ends_at:
            return opens_at, Reason.NONE
        return opens_at, Reason.MAILING_ENDED if ends_at <= now else Reason.WINDOW_NOT_BEFORE_END

    def _close(self, messages: Sequence[MessageRow], due_at: datetime, created_at: datetime) -> None:
        """Write messages that ended alike and untried down in one block."""
        one = messages[0]
        for message in messages:
            message.place = Place.BLOCK
        ids = sorted(message.client_id for message in messages)
        self.blocks.append(BlockRow(one.bucket, one.mailing_id, ids, due_at, created_at, one.status, one.reason))

    def open_batches(
        self,
        mailing_id: int,
        client_ids: list[int],
        due_at: datetime,
        most: int = 500,
        created_at: datetime | None = None,
    ) -> None:
        """Put messages of one bucket into new batches; fresh ones, if they have no rows since they were created."""
        size = min(most, self._batch_size)
        for first in range(0, len(client_ids), size):
            self._batch_no += 1
            ids = sorted(client_ids)[first : first + size]
            row = BatchRow(ids[0] % BUCKETS, mailing_id, self._batch_no, ids, due_at)
            row.fresh, row.created_at = created_at is not None, created_at or EPOCH
            row.opened_at = self.world.now_at
            self.batches[self._batch_no] = row

    def rechecks_due(self, now: datetime) -> list[Expansion]:
        due = [m for m in self.mailings.values() if m.state is _RUNNING and _is_recheck_due(m, now)]
        found = []
        for mailing in due:
            rows = [e for e in self.expansions.values() if e.mailing_id == mailing.id]
            behind = {e.bucket: e.change_seq for e in rows if self.change_seq[e.bucket] > e.change_seq}
            found.append(_expansion(mailing, behind, 0, False))
        return found

    def expand_changes(self, expansion: Expansion, bucket: int, batch_size: int, limit: int, now: datetime) -> Step:
        position = expansion.positions[bucket]
        row = self.expansions.get((bucket, expansion.mailing_id))
        mailing = self._as_known(expansion)
        if row is None or mailing is None or row.change_seq != position or not row.finished:
            return Step(False, 0, 0, position, False)
        fresh = [change for change in self.changes[bucket] if change[0] > position][:limit]
        if mailing.state is not _RUNNING or not fresh:
            return Step(False, 0, 0, position, False)
        ids = sorted({i for _, changed, _ in fresh for i in changed})
        found = [self.clients[i] for i in ids if i in self.clients]
        inserted = self._take_in(mailing, found, batch_size, EVERYBODY, now)
        row.change_seq = fresh[-1][0]
        row.reached = EVERYBODY
        return Step(True, len(fresh), inserted, row.change_seq, len(fresh) < limit)

    def rechecked(
        self, ids: Sequence[int], found: Sequence[int], shortest: float, longest: float, now: datetime
    ) -> None:
        for mailing in [self.mailings[i] for i in ids]:
            if mailing.state is _RUNNING:
                longer = max(shortest, min(mailing.recheck_interval * 2, longest))
                mailing.recheck_interval = shortest if mailing.id in found else longer
                mailing.recheck_at = now + timedelta(seconds=mailing.recheck_interval)

    def expanded(self, recheck_min: float, now: datetime) -> None:
        for mailing in self.mailings.values():
            rows = [e for e in self.expansions.values() if e.mailing_id == mailing.id]
            begun = mailing.state in (_RUNNING, _PAUSED, MailingState.COMPLETED)
            if mailing.expanded_at is None and begun and rows and all(e.finished for e in rows):
                mailing.expanded_at = now
            open_audience = mailing.audience is AudienceMode.OPEN and mailing.recheck_at is None
            if mailing.state is _RUNNING and open_audience and rows and all(e.finished for e in rows):
                mailing.recheck_interval = recheck_min
                mailing.recheck_at = now + timedelta(seconds=recheck_min)

    def expedite(self, now: datetime) -> None:
        for batch in self.batches.values():
            mailing = self.mailings[batch.mailing_id]
            over = mailing.state is MailingState.CANCELLED or mailing.is_over(now)
            ends_before = mailing.state is _RUNNING and mailing.is_over(batch.due_at)
            if batch.due_at > now and (over or ends_before or self._was_put_off_wrongly(batch, mailing, now)):
                batch.due_at = batch.opened_at = now
        for batch in self.batches.values():
            if batch.due_at <= now and batch.leased_at > now + _SOON and batch.lease_until > now:
                batch.lease_until, batch.leased_at = now + (batch.lease_until - batch.leased_at), now

    def _was_put_off_wrongly(self, batch: BatchRow, mailing: MailingRow, now: datetime) -> bool:
        """Return whether a batch waits by a timetable that is another one since, or by a clock that was set back."""
        judged, minute = mailing.judged_at, timedelta(minutes=1)
        if judged is not None and judged <= now - minute and batch.opened_at - judged < minute:
            return True
        backoff = timedelta(seconds=mailing.retry.max_backoff)
        return batch.opened_at > now + _SOON and batch.due_at - batch.opened_at <= backoff

    def complete(self, ids: Sequence[int] | None, now: datetime) -> list[int]:
        unfinished = {e.mailing_id for e in self._expanding()} | {b.mailing_id for b in self.batches.values()}
        done = [
            mailing
            for mailing in self.mailings.values()
            if mailing.state in (_RUNNING, _PAUSED)
            and (ids is None or mailing.id in ids)
            and (mailing.is_over(now) or mailing.audience is AudienceMode.SNAPSHOT)
            and mailing.id not in unfinished
        ]
        for mailing in done:
            mailing.state = MailingState.COMPLETED
            mailing.recheck_at = None
        return [mailing.id for mailing in done]

    def forget_changes(self, now: datetime) -> None:
        live = [e for e in self.expansions.values() if self.mailings[e.mailing_id].state in (_RUNNING, _PAUSED)]
        for bucket, changes in self.changes.items():
            read = min([e.change_seq for e in live if e.bucket == bucket], default=self.change_seq[bucket])
            self.changes[bucket] = [c for c in changes if c[0] > read or c[2] >= now - _KEPT_FOR]

    def changed(self, client: Client) -> None:
        """Note that a client was written."""
        self.change_seq[client.bucket] += 1
        self.changes[client.bucket].append((self.change_seq[client.bucket], [client.id], self.world.now_at))
        phone = client.phone if client.id in self.clients else None
        self.histories[client.id].append(ClientState(self.world.true_at, phone, client.tag, client.opted_out))

    # The statements of claiming and settling.

    def scan(self, now: datetime) -> list[OpenWork]:
        free = [b for b in self.batches.values() if b.due_at <= now and b.lease_until <= now]
        groups = Counter((b.mailing_id, b.bucket) for b in free if self._sends(self.mailings[b.mailing_id], now))
        return [self._work(self.mailings[mailing_id], bucket, n, now) for (mailing_id, bucket), n in groups.items()]

    def _work(self, mailing: MailingRow, bucket: int, batches: int, now: datetime) -> OpenWork:
        over = (
            mailing.state is MailingState.CANCELLED or mailing.is_over(now) or self._is_all_late(mailing, bucket, now)
        )
        full = self.limits.is_full(mailing, now)
        return OpenWork(mailing.id, bucket, batches, mailing.version, mailing.priority, "default", over, full)

    def _is_all_late(self, mailing: MailingRow, bucket: int, now: datetime) -> bool:
        """Return whether everything that is free has been due for so long that it is too late."""
        if mailing.timetable.skip_after is None:
            return False
        late = now - timedelta(seconds=mailing.timetable.skip_after)
        free = [b for b in self.batches.values() if b.due_at <= now and b.lease_until <= now]
        return all(b.due_at <= late for b in free if (b.mailing_id, b.bucket) == (mailing.id, bucket))

    def definitions(self, ids: Sequence[int], now: datetime) -> dict[int, Mailing]:
        rows = {i: self.mailings[i] for i in ids if i in self.mailings}
        return {i: replace(row.as_read(), day_full=self.limits.is_full(row, now)) for i, row in rows.items()}

    def change_numbers(self) -> dict[int, int]:
        return {bucket: self.change_seq[bucket] for bucket in range(BUCKETS)}

    def changed_clients(self, bucket: int, after: int, until: int, client_ids: Sequence[int]) -> list[int]:
        fresh = [ids for no, ids, _ in self.changes[bucket] if after < no <= until]
        changed = {i for ids in fresh for i in ids}
        return [i for i in client_ids if i in changed or len(fresh) < until - after]

    def is_claimable(self, mailing: Mailing, now: datetime) -> bool:
        """Return whether the mailing is as it was read, and sends or is over: what a claim asks of its snapshot."""
        row = self.mailings.get(mailing.id)
        if row is None or (row.version, row.state) != (mailing.version, mailing.state):
            return False
        return self._sends(row, now)

    def claim(
        self,
        mailing: Mailing,
        bucket: int,
        most: int,
        lease: float,
        holder: str,
        now: datetime,
        held: Sequence[int] = (),
    ) -> list[Claimed]:
        free = [
            b
            for b in self.batches.values()
            if (b.mailing_id, b.bucket) == (mailing.id, bucket) and b.due_at <= now and b.lease_until <= now
            if b.no not in held
        ]
        claimed = []
        for batch in sorted(free, key=lambda b: b.no)[:most]:
            batch.maybe_sent = reclaimed = batch.maybe_sent or batch.holder is not None
            self._end_lease(batch, "ran out")
            batch.fence += 1
            batch.lease_until = now + timedelta(seconds=lease)
            batch.holder, batch.leased_at = holder, now
            change_no, ids = self.change_seq[bucket], list(batch.client_ids)
            claimed.append(Claimed(batch.no, batch.fence, ids, reclaimed, now, change_no, batch.fresh))
        return claimed

    def _end_lease(self, batch: BatchRow, how: str) -> None:
        if batch.fence:
            self.ends_of_leases.setdefault((batch.no, batch.fence), how)

    def fetch(
        self, mailing: Mailing, bucket: int, claimed: Claimed, render: Render | None, now: datetime
    ) -> ClaimedBatch:
        messages = [self.messages[mailing.id, i] for i in claimed.client_ids]
        pending = [message for message in messages if message.status is Status.PENDING]
        recipients = Recipients.of(self._recipient(mailing, message, claimed, render, now) for message in pending)
        return ClaimedBatch(
            bucket,
            mailing.id,
            claimed.no,
            claimed.fence,
            claimed.claimed_at,
            claimed.reclaimed,
            recipients,
            claimed.change_no,
        )

    def _recipient(
        self, mailing: Mailing, message: MessageRow, claimed: Claimed, render: Render | None, now: datetime
    ) -> Recipient:
        id_, past = message.client_id, (message.attempts, message.uncounted, message.maybe_sent or claimed.reclaimed)
        client = self.clients.get(id_)
        due = now if claimed.fresh else _due(message, mailing, now)
        if client is None:
            gone = Reason.NONE if mailing.audience is None else Reason.NO_LONGER_MATCHES
            due_at = due if due > now else None
            return Recipient(id_, *past, None, gone, due_at, None, False, "" if render else mailing.text)
        opens_at = client.opens_at(max(due, now))
        text, reason = mailing.text, Reason.NONE
        if render is not None:
            text, reason, _ = render(client.phone, "", client.tag, "UTC", {})
        skip_reason, closes_in = self._barred(mailing, client) or reason, client.closes_in(now)
        comes_too_late = mailing.ends_at is not None and mailing.ends_at <= opens_at and opens_at > now
        if mailing.timed and not skip_reason and not comes_too_late:
            row = self.mailings[mailing.id]
            due_since = row.due_since(message.created_at)
            opens_at, closes_at, skip_reason = row.timetable.departure(client, row.ends_at, due_since, opens_at)
            closes_in = None if closes_at == NEVER else (closes_at - now).total_seconds()
        return Recipient(
            id_,
            *past,
            phone=client.phone,
            skip_reason=skip_reason,
            opens_at=opens_at if opens_at > now else None,
            closes_in=closes_in,
            overdue=False,  # no schedule lasts a day
            text=Stamped.of(text, claimed.no, claimed.fence, opens_at <= now and not skip_reason, self.world.now),
        )

    def _barred(self, mailing: Mailing, client: Client) -> Reason:
        if client.opted_out:
            return Reason.OPTED_OUT
        matches = mailing.audience is None or client.tag in (mailing.audience.tags or [])
        return Reason.NONE if matches else Reason.NO_LONGER_MATCHES

    def release_orphans(self, holder: str, known: Sequence[int], now: datetime) -> None:
        for batch in self.batches.values():
            if batch.holder == holder and batch.lease_until > now and batch.no not in known:
                self._give_back(batch)

    def _give_back(self, batch: BatchRow) -> None:
        self._end_lease(batch, "given back")
        batch.lease_until, batch.holder = _LONG_AGO, None

    def settle(self, settlement: Settlement) -> bool:
        batch, done, kept = settlement.batch, settlement.done, settlement.kept
        row = self.batches.get(batch.no)
        if row is None or row.fence != batch.fence:
            return False
        settled = self._settle_fresh(row, settlement) if row.fresh else self._settle_rows(row, settlement)
        if row.fresh:
            row.client_ids = kept = [i for i in row.client_ids if i not in settled]
        if done and kept:
            row.client_ids = list(kept)
            self._give_back(row)
            row.fence += 1
        elif done:
            self.end_batch(row.no)
        requeued: dict[tuple[datetime, Place], list[int]] = {}
        for client_id, outcome in settled.items():
            if outcome.due_at is not None:
                place = self.messages[batch.mailing_id, client_id].place
                requeued.setdefault((outcome.due_at, place), []).append(client_id)
        for (due_at, place), client_ids in requeued.items():
            created_at = row.created_at if place is Place.BATCH else None
            self.open_batches(batch.mailing_id, client_ids, due_at, created_at=created_at)
        return True

    def _settle_rows(self, row: BatchRow, settlement: Settlement) -> dict[int, Outcome]:
        """Record what is still pending, and not settled before with the answer lost; return that."""
        settled = {}
        for client_id, attempts_before, outcome in settlement:
            message = self.messages[row.mailing_id, client_id]
            if message.status is Status.PENDING and message.attempts == attempts_before:
                self._record(row, message, outcome)
                settled[client_id] = outcome
        return settled

    def _settle_fresh(self, row: BatchRow, settlement: Settlement) -> dict[int, Outcome]:
        """Write down what the batch still has, and was not settled before with the answer lost; return that."""
        settled = {client_id: outcome for client_id, _, outcome in settlement if client_id in row.client_ids}
        messages = [self.messages[row.mailing_id, client_id] for client_id in settled]
        for message in messages:
            outcome = settled[message.client_id]
            message.due_at = row.due_at
            self._record(row, message, outcome)
            untried = outcome.status is Status.PENDING and not (message.attempts or message.maybe_sent)
            message.place = Place.BATCH if untried else Place.ROW
        ends = {(o.status, o.reason, o.attempted, o.maybe_sent or row.maybe_sent) for o in settled.values()}
        unsent = {(status, reason, 0, False) for status, reason, *_ in ends if status in _UNSENT}
        if len(settled) > 1 and len(ends) == 1 and ends == unsent:
            self._close(messages, row.due_at, row.created_at)
        return settled

    def _record(self, row: BatchRow, message: MessageRow, outcome: Outcome) -> None:
        self.move(message, outcome.status, outcome.reason)
        message.attempts += outcome.attempted
        message.uncounted += outcome.uncounted
        message.maybe_sent |= outcome.maybe_sent or row.maybe_sent
        self.attempts[row.mailing_id] += outcome.attempted
        message.due_at = outcome.due_at or message.due_at

    def end_batch(self, no: int) -> None:
        """Remove a batch that is done with."""
        self._end_lease(self.batches.pop(no), "settled")

    def take_out(self, mailing_id: int, client_ids: Set[int]) -> None:
        """Take clients out of the batches in which their settled messages still stand."""
        for batch in [b for b in self.batches.values() if b.mailing_id == mailing_id and not b.fresh]:
            batch.client_ids = [i for i in batch.client_ids if i not in client_ids]
            if not batch.client_ids:
                self.end_batch(batch.no)

    def move(self, message: MessageRow, status: Status, reason: Reason) -> None:
        """Change a message's status, and the counters with it."""
        self.counts[message.mailing_id, message.status] -= 1
        self.counts[message.mailing_id, status] += 1
        message.status, message.reason = status, reason

    def define(self, mailing: MailingRow) -> None:
        """Note a mailing's definition as in force from now on."""
        mailing.definitions.append(Definition(self.world.true_at, mailing.text, mailing.ends_at))

    def change_timetable(self, mailing: MailingRow, timetable: Timetable, now: datetime) -> None:
        """Give a mailing another timetable, and let all that waits be judged by it."""
        mailing.timetable = timetable
        mailing.version += 1
        mailing.judged_at = now
        for batch in self.batches.values():
            if batch.mailing_id == mailing.id and batch.due_at > now:
                batch.due_at = batch.opened_at = now


def _is_recheck_due(mailing: MailingRow, now: datetime) -> bool:
    """Return whether it is; one further ahead than it can be was stored by a clock that was set back since."""
    latest = now + timedelta(seconds=mailing.recheck_interval) + _SOON
    return mailing.recheck_at is not None and not now < mailing.recheck_at <= latest


def _due(message: MessageRow, mailing: Mailing, now: datetime) -> datetime:
    """Return when a message is due that has a row; what cannot be so far ahead is due now."""
    latest = now + timedelta(seconds=mailing.retry.max_backoff + 5.0)
    return max(message.due_at, now) if message.created_at < message.due_at <= latest else now


def _expansion(mailing: MailingRow, positions: dict[int, int], open_batches: int, over: bool) -> Expansion:
    chosen = AudienceFilter(tags=[mailing.tag])
    return Expansion(
        mailing.id, mailing.version, chosen, mailing.semantics, mailing.max_rate, positions, open_batches, over
    )
