"""Outcomes of messages, and what is recorded together of one batch, counted once.

The database, the counters, the statistics and the event log all read the same settlement. Its
columns are in the order of the client ids, as the statement wants them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from dispatcher.model.batches import ClaimedBatch
from dispatcher.model.states import ErrorClass, Reason, Status


class Failure(NamedTuple):
    """What is recorded of a failed attempt."""

    at: datetime
    error_class: ErrorClass
    excerpt: str


class Outcome(NamedTuple):
    """What is to be recorded of one message.

    `attempted` counts the requests made, 0 or 1, `uncounted` those of them that do not count
    against the limit. `due_at` is set exactly when the message stays PENDING: it goes into a
    new batch that falls due then. `maybe_sent` says that the request may have arrived.
    `provider_id` is the gateway's own id of the message, '' for none.
    """

    status: Status
    reason: Reason
    attempted: int
    endpoint_status: int | None
    endpoint_code: int | None
    duration_ms: int | None
    due_at: datetime | None
    failure: Failure | None
    uncounted: int = 0
    maybe_sent: bool = False
    provider_id: str = ""


Settled = tuple[int, int, Outcome]
"""A client id, the attempts made before, and the outcome to record."""

_DELIVERED = Status.DELIVERED
_QUIET = (Status.PENDING, Status.DELIVERED)


class Columns(NamedTuple):
    """The fields of outcomes, one sequence each."""

    statuses: Sequence[Status] = ()
    reasons: Sequence[Reason] = ()
    attempted: Sequence[int] = ()
    endpoint_statuses: Sequence[int | None] = ()
    endpoint_codes: Sequence[int | None] = ()
    durations_ms: Sequence[int | None] = ()
    due_ats: Sequence[datetime | None] = ()
    failures: Sequence[Failure | None] = ()
    uncounted: Sequence[int] = ()
    maybe_sent: Sequence[bool] = ()
    provider_ids: Sequence[str] = ()


class Settlement:
    """Outcomes of a batch for one write under its fence, by ascending client id.

    `endpoint` is the name of the one they were sent to. With `done` the batch is removed or, with
    the clients in `kept`, given back as open work. `failed` are the outcomes with a failure,
    `ended` those of messages that ended undelivered.
    """

    def __init__(
        self,
        batch: ClaimedBatch,
        endpoint: str,
        client_ids: Sequence[int],
        attempts_before: Sequence[int],
        outcomes: Sequence[Outcome],
        done: bool,
        kept: Sequence[int] = (),
    ) -> None:
        self.batch = batch
        self.endpoint = endpoint
        self.client_ids = client_ids
        self.attempts_before = attempts_before
        self.outcomes = outcomes
        self.done = done
        self.kept = kept
        self.has_details = True
        self.columns = Columns._make(zip(*outcomes, strict=True)) if outcomes else Columns()
        self.delivered = self.columns.statuses.count(_DELIVERED)
        self.failed: Sequence[Settled] = ()
        self.ended: Sequence[Settled] = ()
        if self.delivered < len(outcomes):  # rare, and looked through only then
            self.failed = [one for one in self if one[2].failure is not None]
            self.ended = [one for one in self if one[2].status not in _QUIET]

    @classmethod
    def of(
        cls, batch: ClaimedBatch, endpoint: str, settled: Sequence[Settled], done: bool, kept: Sequence[int] = ()
    ) -> Settlement:
        """Return the settlement of outcomes that are given one by one."""
        client_ids, before, outcomes = zip(*settled, strict=True) if settled else ((), (), ())
        return cls(batch, endpoint, client_ids, before, outcomes, done, kept)

    def __iter__(self) -> Iterator[Settled]:
        return zip(self.client_ids, self.attempts_before, self.outcomes, strict=True)

    def __len__(self) -> int:
        return len(self.client_ids)

    def without_details(self) -> Settlement:
        """Return the same without anything that the endpoint had a say in."""
        bare_ones = [one._replace(endpoint_status=None, endpoint_code=None, failure=None) for one in self.outcomes]
        bare = Settlement(
            self.batch, self.endpoint, self.client_ids, self.attempts_before, tuple(bare_ones), self.done, self.kept
        )
        bare.has_details = False
        return bare

    @property
    def attempt_durations_ms(self) -> Sequence[int | None]:
        """The durations of the requests that were made."""
        attempted, durations = self.columns.attempted, self.columns.durations_ms
        if attempted.count(1) == len(self):
            return durations
        return [ms for ms, made in zip(durations, attempted, strict=True) if made]
