"""What is promised, checked at the moment at which it could be broken.

`started` sees every request before it leaves, `settling` every outcome before it is written,
`audit` the tables when all is over. They look at the truth (the model database, the model
endpoint), never at what a dispatcher believes. Each promise that does not hold leaves a sentence
in `broken`.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.model.batches import ClaimedBatch
from dispatcher.model.endpoints import Answer
from dispatcher.model.outcomes import Outcome, Settlement
from dispatcher.model.states import AudienceMode, BreakerState, ErrorClass, MailingState, Reason, Semantics, Status
from dispatcher.verdict import judge
from tests.simulation.database import Database
from tests.simulation.rows import Client, MailingRow, MessageRow, Place, Stamped
from tests.simulation.world import World

STOPS_WITHIN = timedelta(seconds=1)
"""How long after Pause, Cancel, an update or a change of a client a request may still start as before."""

KNOWN_WITHIN = timedelta(seconds=2)
"""How long after a breaker opened other replicas may still send."""

AHEAD = timedelta(seconds=4)
"""How far a lease's clock may run ahead of the database's: by the time that its claim took."""

_CLAIM_TAKES = 1.0
"""Seconds that a claim may take from its beginning, at whose time its lease counts, to its commit."""

UNKNOWN_ERRORS = {
    ErrorClass.TIMEOUT,
    ErrorClass.DISCONNECT,
    ErrorClass.PROTOCOL,
    ErrorClass.TOO_LARGE,
    ErrorClass.UNREADABLE,
}

NOT_SENT = {Status.EXPIRED, Status.CANCELLED, Status.SKIPPED}
IN_DOUBT = {"nothing", "unknown", "delivered"}
"""What senders know of requests that may have arrived. One that was delivered counts as such only if it is recorded."""


@dataclass
class Request:
    """A request that has left. `processed` is the endpoint's truth, `knows` what its sender learned."""

    number: int
    process: str
    lease: tuple[int, int]
    epoch: int
    started_at: datetime
    processed: bool = False
    knows: str = "nothing"
    returned_at: datetime | None = None
    retry_after: float = 0.0
    locked: bool = False
    clocks: Sequence[timedelta] = (timedelta(),)
    """How far ahead the clock may have been by which its lease counts: that of the claim."""
    counts: bool = True
    """Whether the attempt counts against the limit: it does unless the endpoint did not look at the message."""


class Promises:
    """Watches a world; `broken` is empty as long as all is well."""

    def __init__(self, world: World, database: Database) -> None:
        self.broken: list[str] = []
        self.requests: dict[tuple[int, int], list[Request]] = defaultdict(list)
        self.touched: set[int] = set()
        """Clients that were changed: there is no promise that they get a message."""
        self.clock_error: float | None = None
        """How many seconds replicas may be wrong about the database's clock; None where rates are not checked."""
        self.thaws: dict[str, datetime] = {}
        """When processes that froze go on: what they learned before may be old."""
        self._recent: dict[int, deque[datetime]] = defaultdict(deque)
        self.endpoint_quota = 0
        self._on_days: dict[str, Counter[frozenset[int]]] = defaultdict(Counter)
        self._world = world
        self._database = database
        self._number = 0

    def breaks(self, promise: str, *what: object) -> None:
        """Note a promise that does not hold."""
        sentence = " ".join(map(str, (promise, *what)))
        self._world.tell("BROKEN:", sentence)
        self.broken.append(sentence)

    # A request leaves.

    def started(self, process: str, message_id: int, phone: str, text: str) -> Request:
        """Check a request that leaves at this moment."""
        assert isinstance(text, Stamped)
        key = message_id >> 32, message_id & 0xFFFFFFFF
        message, mailing = self._database.messages[key], self._database.mailings[key[0]]
        self._number += 1
        lease = (text.batch_no, text.fence)
        request = Request(self._number, process, lease, message.retried, self._world.true_at)
        request.clocks = self._world.clocks_since(text.claimed - _CLAIM_TAKES, text.claimed)
        self._world.tell(process, "sends", request.number, key, "lease", *lease)
        self._check_lease(request, message, text)
        self._check_window(request, message)
        self._check_timetable(request, mailing, message)
        self._check_client(request, mailing, message, phone)
        self._check_definition(request, mailing, phone, text)
        self._check_repetition(request, mailing, message)
        self._check_breaker(request)
        self._check_rate(request, mailing)
        self._check_quotas(request, mailing)
        self.requests[key].append(request)
        return request

    def _check_lease(self, request: Request, message: MessageRow, text: Stamped) -> None:
        batch = self._database.batches.get(text.batch_no)
        if text.claimed - _CLAIM_TAKES <= self._world.clocks[-1][0] and self._world.is_set:
            return  # Since the clock was set the lease seems to be over, or another replica has it.
        if batch is None or batch.fence != text.fence or batch.holder != request.process:
            self.breaks("a request leaves under a lease that another replica has by now:", request)
        elif batch.lease_until <= self._world.now_at:
            self.breaks("a request leaves after its lease:", request, batch.lease_until)
        if message.status is not Status.PENDING:
            self.breaks("a request leaves for a message that is settled:", request, message)
        if not text.sendable:
            self.breaks("a request leaves for a message that was not to be sent at the claim:", request, message)

    def _check_window(self, request: Request, message: MessageRow) -> None:
        client = self._database.clients.get(message.client_id)
        if client is not None and not any(client.opens_at(now) == now for now in self._moments(request)):
            self.breaks("a request leaves outside the client's window:", request, client)

    def _moments(self, request: Request) -> list[datetime]:
        """Return the time at which a request leaves, by the database's clock as its lease knows it."""
        return [request.started_at + ahead for ahead in request.clocks]

    def _check_timetable(self, request: Request, mailing: MailingRow, message: MessageRow) -> None:
        client = self._database.clients.get(message.client_id)
        if client is None or not mailing.timetables:
            return
        lasting = [since for since, _ in mailing.timetables[1:]] + [request.started_at]
        recent = [
            timetable
            for (_, timetable), until in zip(mailing.timetables, lasting, strict=True)
            if until >= request.started_at - STOPS_WITHIN
        ]
        due_since = mailing.due_since(message.created_at)
        pairs = [(timetable, now) for timetable in recent for now in self._moments(request)]
        if not any(timetable.allows(client, due_since, now) for timetable, now in pairs):
            self.breaks("a request leaves outside the mailing's timetable:", request, client, mailing.timetables)

    def _check_client(self, request: Request, mailing: MailingRow, message: MessageRow, phone: str) -> None:
        now = request.started_at
        states = self._database.histories[message.client_id]
        lasting = [nxt.since for nxt in states[1:]] + [now]
        recent = [s for s, until in zip(states, lasting, strict=True) if until >= now - STOPS_WITHIN]
        snapshot = mailing.audience is AudienceMode.SNAPSHOT
        if not any(s.phone == phone and not s.opted_out and (snapshot or s.tag == mailing.tag) for s in recent):
            self.breaks("a request leaves more than a second after its client was changed:", request, phone, states)

    def _check_definition(self, request: Request, mailing: MailingRow, phone: str, text: Stamped) -> None:
        now = request.started_at
        if mailing.stopped_at is not None and now > mailing.stopped_at + STOPS_WITHIN:
            self.breaks("a request leaves more than a second after its mailing was stopped:", request, mailing)
        lasting = [nxt.since for nxt in mailing.definitions[1:]] + [now]
        recent = [d for d, until in zip(mailing.definitions, lasting, strict=True) if until >= now - STOPS_WITHIN]
        moments = self._moments(request)
        if not any(d.ends_at is None or now < d.ends_at for d in recent for now in moments):
            self.breaks("a request leaves after the mailing's end:", request, mailing)
        texts = {d.text.replace("{phone}", phone) for d in recent}
        if str(text) not in texts:
            self.breaks("a request leaves with a text that is out of date:", request, str(text), texts)

    def _check_repetition(self, request: Request, mailing: MailingRow, message: MessageRow) -> None:
        """No message goes out twice, but where nobody can know whether the first one arrived."""
        for earlier in self.requests[message.mailing_id, message.client_id]:
            if earlier.epoch != message.retried:
                continue  # A caller asked for the repetition.
            if earlier.lease == request.lease:
                self.breaks("a message leaves twice under one lease:", earlier, request)
            how = self._database.ends_of_leases.get(earlier.lease)
            refused = earlier.knows == "refused" and not message.uncounted
            if (refused or earlier.knows in ("nothing", "delivered")) and how != "ran out":
                self.breaks("a message leaves twice although its lease", how, earlier, request)
            if mailing.semantics is Semantics.AT_MOST_ONCE and (earlier.knows != "failed" or how == "ran out"):
                self.breaks("a message that goes out at most once leaves again:", earlier, request)

    def _check_breaker(self, request: Request) -> None:
        """While an endpoint is down only the one who probes it sends, and the others soon know."""
        row = self._database.limits.endpoint
        if self._world.is_set:
            return  # Probes and pauses are due by a clock that replicas do not know.
        told_at = max(row.changed_at, self.thaws.get(request.process, row.changed_at))
        known = request.started_at > told_at + KNOWN_WITHIN
        if row.breaker is not BreakerState.CLOSED and known and row.prober != request.process:
            self.breaks("a request leaves for an endpoint that is down:", request, row)
        paused_at = max(row.paused_at, self.thaws.get(request.process, row.paused_at))
        if paused_at + KNOWN_WITHIN < request.started_at < row.paused_until:
            self.breaks("a request leaves for an endpoint that asked for patience:", request, row)

    def _check_rate(self, request: Request, mailing: MailingRow) -> None:
        """Over all replicas no second sees more requests of a mailing than its rate.

        A replica knows the database's clock as well as its shortest way there and back tells; a
        request that still needs a connection leaves later than its moment.
        """
        if mailing.max_rate <= 0 or self.clock_error is None:
            return
        recent = self._recent[mailing.id]
        recent.append(request.started_at)
        while recent[0] <= request.started_at - timedelta(seconds=1.0 - self.clock_error):
            recent.popleft()
        if len(recent) > mailing.max_rate + 1:
            self.breaks("more requests leave within a second than the rate allows:", len(recent), mailing)

    def _check_quotas(self, request: Request, mailing: MailingRow) -> None:
        """Over all replicas no day sees more requests than the largest quota that held on it.

        Where the clock was set in the last day, a request may be one of the day that it was before.
        """
        limits, now = self._database.limits, request.started_at
        clocks = self._world.clocks_since(self._world.now - limits.day.total_seconds())
        days = frozenset(limits.day_of(now + ahead) for ahead in clocks)
        lasting = [since for since, _ in mailing.quotas[1:]] + [now]
        held = [
            most
            for (_, most), until in zip(mailing.quotas, lasting, strict=True)
            if self._world.is_set or limits.day_of(until + STOPS_WITHIN) >= min(days)
        ]
        self._check_days(f"mailing/{mailing.id}", days, max(held) if all(held) else 0)
        self._check_days("endpoint", days, self.endpoint_quota)

    def _check_days(self, key: str, days: frozenset[int], most: int) -> None:
        seen = self._on_days[key]
        seen[days] += 1
        count = sum(n for some, n in seen.items() if some <= days)
        if most and count > most * len(days):
            self.breaks("more requests leave on a day than the quota allows:", key, sorted(days), count, most)

    def returned(self, request: Request, answer: Answer) -> None:
        """Note what the sender learned of a request."""
        verdict = judge(answer)
        if verdict.delivered:
            request.knows = "delivered"
        elif not verdict.retryable:
            request.knows = "refused"
        else:
            request.knows = "unknown" if verdict.error_class in UNKNOWN_ERRORS else "failed"
        request.returned_at = self._world.true_at + request.clocks[0]
        request.locked = verdict.error_class is ErrorClass.CREDENTIALS
        request.counts = verdict.error_class not in (ErrorClass.THROTTLED, ErrorClass.CREDENTIALS)
        request.retry_after = verdict.retry_after or 0.0
        self._world.tell(request.process, "learns of", request.number, request.knows)

    # Outcomes are written.

    def settling(self, process: str, settlement: Settlement) -> None:
        """Check outcomes that are about to be written."""
        batch, kept = settlement.batch, settlement.kept
        row = self._database.batches.get(batch.no)
        held = row is not None and row.fence == batch.fence
        self._world.tell(
            process, "settles", batch.no, "fence", batch.fence, "done" if settlement.done else "partly", held
        )
        if held and kept:
            self._world.tell("    gives back", kept)
            self._check_kept((batch.no, batch.fence), batch.mailing_id, kept)
        for client_id, before, outcome in settlement if held else ():
            message = self._database.messages[batch.mailing_id, client_id]
            self._world.tell("   ", client_id, outcome.status.name, outcome.reason.name, outcome.due_at or "")
            # Not one whose settlement took effect, its answer lost, and that was put back since.
            if message.status is Status.PENDING and message.attempts == before:
                self._check_outcome((batch.no, batch.fence), message, before, outcome)

    def _check_kept(self, lease: tuple[int, int], mailing_id: int, kept: Sequence[int]) -> None:
        for client_id in kept:
            if made := [r for r in self.requests[mailing_id, client_id] if r.lease == lease]:
                self.breaks("a message that was begun is given back as if it had not been:", made)

    def _check_outcome(self, lease: tuple[int, int], message: MessageRow, before: int, outcome: Outcome) -> None:
        mailing = self._database.mailings[message.mailing_id]
        client = self._database.clients.get(message.client_id)
        made = [r for r in self.requests[message.mailing_id, message.client_id] if r.lease == lease]
        if made and not outcome.attempted:
            self.breaks("a request was made and is not recorded:", made, outcome)
        if not self._is_true(outcome, message, mailing, client, made, lease):
            self.breaks("an outcome is not true:", outcome, mailing, client, made)
        if outcome.status in NOT_SENT and any(r.processed and r.knows in IN_DOUBT for r in self._all(message)):
            self.breaks("a message that arrived is recorded as not sent:", self._all(message), outcome)
        if outcome.reason is Reason.RETRYING:
            self._check_retry(mailing, message, outcome, made)
        excused = outcome.uncounted and {request.knows for request in made} == {"refused"}
        if not excused and outcome.uncounted != int(outcome.attempted and not any(request.counts for request in made)):
            self.breaks("only what was surely not looked at costs no attempt:", outcome, made)

    def _is_true(
        self,
        outcome: Outcome,
        message: MessageRow,
        mailing: MailingRow,
        client: Client | None,
        made: list[Request],
        lease: tuple[int, int],
    ) -> bool:
        """Return whether what is to be recorded of a message is what has happened."""
        now = self._world.true_at + max(ahead for _, ahead in self._world.clocks)
        knows = {request.knows for request in made}
        match outcome.status, outcome.reason:
            case Status.DELIVERED, _:
                return "delivered" in knows and any(request.processed for request in made)
            case Status.FAILED, Reason.REFUSED:
                return "refused" in knows or any(request.locked for request in made)
            case Status.FAILED, Reason.ATTEMPTS_EXHAUSTED:
                return knows <= {"failed", "unknown"} and outcome.attempted == 1
            case Status.UNKNOWN, Reason.MAYBE_SENT:
                return outcome.attempted == 1 or self._is_doubtful(message, lease)
            case Status.UNKNOWN, reason:
                amo = mailing.semantics is Semantics.AT_MOST_ONCE
                return amo and (reason is Reason.LEASE_LOST or knows <= {"unknown"})
            case Status.CANCELLED, Reason.MAILING_CANCELLED:
                return mailing.state is MailingState.CANCELLED
            case Status.CANCELLED, Reason.CLIENT_DELETED:
                return client is None
            case Status.SKIPPED, Reason.OPTED_OUT:
                return client is None or client.opted_out
            case Status.SKIPPED, Reason.NO_LONGER_MATCHES:
                return mailing.audience is AudienceMode.OPEN and message.client_id in self.touched
            case Status.EXPIRED, Reason.MAILING_ENDED:
                # One that was tried ends as soon as its next attempt would come after the end.
                tried = outcome.attempted or message.attempts
                return any(d.ends_at is not None and (tried or d.ends_at <= now + AHEAD) for d in mailing.definitions)
            case Status.EXPIRED, Reason.WINDOW_NOT_BEFORE_END:
                return any(d.ends_at is not None for d in mailing.definitions)
            case Status.EXPIRED, Reason.DAILY_LIMIT:
                ended = any(d.ends_at is not None and d.ends_at <= now + AHEAD for d in mailing.definitions)
                return ended and (self.endpoint_quota > 0 or any(most for _, most in mailing.quotas))
            case Status.EXPIRED, Reason.HOURS_NOT_BEFORE_END:
                return any(timetable for _, timetable in mailing.timetables)
            case Status.EXPIRED, Reason.TOO_LATE:
                return any(timetable.skip_after is not None for _, timetable in mailing.timetables)
            case Status.PENDING, Reason.RETRYING:
                excused = outcome.uncounted == 1 and knows == {"refused"}  # everybody was refused alike
                return (knows <= {"failed", "unknown"} or excused) and outcome.attempted == 1
            case status, reason:
                return (status, reason) == (Status.PENDING, Reason.NONE)

    def _all(self, message: MessageRow) -> list[Request]:
        return self.requests[message.mailing_id, message.client_id]

    def _is_doubtful(self, message: MessageRow, lease: tuple[int, int]) -> bool:
        """Return whether a request of the message may have arrived, or a lease of its batch ran out."""
        earlier = any(request.knows in IN_DOUBT for request in self._all(message))
        return earlier or message.maybe_sent or self._database.batches[lease[0]].maybe_sent

    def _check_retry(self, mailing: MailingRow, message: MessageRow, outcome: Outcome, made: list[Request]) -> None:
        """Another attempt: allowed by the limit, not before Retry-After, not after the longest back-off."""
        retry = mailing.retry
        counted = message.attempts - message.uncounted
        before = message.attempts if outcome.uncounted else counted
        if not outcome.uncounted and counted + 1 >= retry.max_attempts:
            self.breaks("a message is tried again beyond its limit:", outcome, retry)
        ended = [request for request in made if request.returned_at is not None]
        if not ended or len(ended[-1].clocks) > 1:
            return  # There was no connection, and it is not known here when that was; or by which clock.
        assert outcome.due_at is not None
        assert ended[-1].returned_at is not None
        wait = (outcome.due_at - ended[-1].returned_at).total_seconds()
        asked = min(ended[-1].retry_after, retry.max_backoff)
        longest = min(retry.max_backoff, retry.initial_backoff * 2.0 ** max(before, 0))
        # Retries fall due in slots of an eighth of the back-off, and a lease's clock runs ahead by the time that
        # its claim took.
        if wait < asked - 0.001:
            self.breaks("a message is tried again before the endpoint wants it:", wait, asked, made)
        if wait > max(longest, asked) + longest / 8 + 3.0:
            self.breaks("a message waits longer than the back-off:", wait, longest, asked)

    def settled(self, batch: ClaimedBatch, closed: bool) -> None:
        """Check that nothing got lost with a batch that is done."""
        if closed:
            ids = [recipient.client_id for recipient in batch.recipients]
            self._check_batches([self._database.messages[batch.mailing_id, client_id] for client_id in ids])

    def _check_batches(self, messages: Sequence[MessageRow]) -> None:
        """Every pending message stands in exactly one open batch: a fresh one as long as it has no row."""
        standing = Counter((b.mailing_id, b.fresh, i) for b in self._database.batches.values() for i in b.client_ids)
        closed = Counter((b.mailing_id, i) for b in self._database.blocks for i in b.client_ids)
        for message in messages:
            place, pending = message.place, message.status is Status.PENDING
            fresh, other = (standing[message.mailing_id, kind, message.client_id] for kind in (True, False))
            if pending and fresh + other != 1:
                self.breaks("a pending message stands in", fresh + other, message)
            if fresh != (place is Place.BATCH) or (place is Place.BATCH and not pending):
                self.breaks("a message without a row stands in", fresh, "fresh batches:", message)
            if closed[message.mailing_id, message.client_id] != (place is Place.BLOCK):
                self.breaks("a message is in blocks that do not have it, or not in its one:", message)

    # All is over.

    def audit(self) -> None:
        """Check the tables when everything has come to rest."""
        database = self._database
        self._check_batches(list(database.messages.values()))
        counted = Counter((message.mailing_id, message.status) for message in database.messages.values())
        if counted != +database.counts:
            self.breaks("counters differ from the rows:", counted, database.counts)
        for message in database.messages.values():
            if message.status is Status.PENDING:
                self.breaks("a message never ends:", message, database.mailings[message.mailing_id])
        for mailing in database.mailings.values():
            self._check_audience(mailing)

    def _check_audience(self, mailing: MailingRow) -> None:
        """Everybody who belonged to the audience from first to last has a message."""
        if mailing.state is MailingState.CANCELLED:
            return
        for client in self._database.clients.values():
            known = client.id in self.touched or (mailing.id, client.id) in self._database.messages
            if client.tag == mailing.tag and not known:
                self.breaks("a client was forgotten:", client, mailing)
