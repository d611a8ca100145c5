"""The rows of the model database, as plain objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from dispatcher.model.mailings import AudienceFilter, Mailing, RetryPolicy
from dispatcher.model.quotas import day_limit
from dispatcher.model.states import AudienceMode, BreakerState, MailingState, Reason, Semantics, Status, Suspension
from tests.simulation.timetables import Timetable
from tests.simulation.world import EPOCH

BUCKETS = 2
DAY = 40.0
"""How long the days of clients are: short, so that schedules have some."""

EVERYBODY = 2**63 - 1
"""Beyond every client."""


@dataclass
class Client:
    """`opens` and `length` are a window in every `day` seconds; the client's clock is so many seconds `ahead`."""

    id: int
    phone: str
    tag: str
    opted_out: bool = False
    opens: float | None = None
    length: float = 0.0
    created_at: datetime = EPOCH
    ahead: float = 0.0
    day: float = DAY

    @property
    def bucket(self) -> int:
        return self.id % BUCKETS

    def opens_at(self, moment: datetime) -> datetime:
        """Return the first moment at or after `moment` inside the window."""
        if self.opens is None or self._since_opening(moment) < self.length:
            return moment
        return moment + timedelta(seconds=self.day - self._since_opening(moment))

    def closes_in(self, moment: datetime) -> float | None:
        """Seconds until the window that is next open, or open now, closes."""
        if self.opens is None:
            return None
        opens_at = self.opens_at(moment)
        return (opens_at - moment).total_seconds() + self.length - self._since_opening(opens_at)

    def _since_opening(self, moment: datetime) -> float:
        since = round(((moment - EPOCH).total_seconds() + self.ahead - (self.opens or 0.0)) % self.day, 6)
        return 0.0 if since >= self.day else since


@dataclass
class ClientState:
    """A client as it was from `since` on; without a phone it is gone."""

    since: datetime
    phone: str | None
    tag: str
    opted_out: bool


@dataclass
class Definition:
    """A mailing's definition, in force from `since` on."""

    since: datetime
    text: str
    ends_at: datetime | None


@dataclass
class MailingRow:
    id: int
    text: str
    tag: str
    starts_at: datetime
    ends_at: datetime | None
    state: MailingState
    audience: AudienceMode
    semantics: Semantics
    priority: int
    retry: RetryPolicy
    max_rate: float = 0.0
    max_per_day: int = 0
    version: int = 1
    recheck_at: datetime | None = None
    recheck_interval: float = 1.0
    definitions: list[Definition] = field(default_factory=list)
    quotas: list[tuple[datetime, int]] = field(default_factory=list)
    """What `max_per_day` was, each since a moment."""
    stopped_at: datetime | None = None
    """Since when it is paused or cancelled."""
    timetable: Timetable = field(default_factory=Timetable)
    timetables: list[tuple[datetime, Timetable]] = field(default_factory=list)
    """What `timetable` was, each since a moment."""
    judged_at: datetime | None = None
    begins_at: datetime | None = None
    expanded_at: datetime | None = None

    def due_since(self, created_at: datetime) -> datetime:
        """Return since when a message is due that was taken in at a moment."""
        late = self.expanded_at is not None and created_at > self.expanded_at
        return max(created_at, self.starts_at) if late else self.starts_at

    def is_over(self, now: datetime) -> bool:
        return self.ends_at is not None and self.ends_at <= now

    def as_read(self) -> Mailing:
        """Return what `WorkQueue.definitions` returns of it."""
        return Mailing(
            id=self.id,
            version=self.version,
            state=self.state,
            text=self.text,
            endpoint="default",
            semantics=self.semantics,
            priority=self.priority,
            ends_at=self.ends_at,
            retry=self.retry,
            audience=AudienceFilter(tags=[self.tag]) if self.audience is AudienceMode.OPEN else None,
            max_rate=self.max_rate,
            day_limit=day_limit(self.max_per_day, ""),
            timed=bool(self.timetable),
        )


@dataclass
class ExpansionRow:
    bucket: int
    mailing_id: int
    change_seq: int
    started_at: datetime
    last_client_id: int = 0
    finished: bool = False
    reached: int = 0
    """Up to which client somebody may be in the mailing already."""


@dataclass
class BatchRow:
    """`holder` names a process; `maybe_sent` says that what an earlier holder sent is not known.

    Of the messages of a `fresh` one, taken in at `created_at`, no row is written yet.
    """

    bucket: int
    mailing_id: int
    no: int
    client_ids: list[int]
    due_at: datetime
    fence: int = 0
    lease_until: datetime = EPOCH - timedelta(days=1)
    holder: str | None = None
    maybe_sent: bool = False
    fresh: bool = False
    created_at: datetime = EPOCH
    opened_at: datetime = EPOCH
    leased_at: datetime = EPOCH


@dataclass
class BlockRow:
    """Messages of one bucket that ended alike and untried."""

    bucket: int
    mailing_id: int
    client_ids: list[int]
    due_at: datetime
    created_at: datetime
    status: Status
    reason: Reason


class Place(Enum):
    """Where a message is written down: in its batch alone, in a row of its own, or in a block."""

    BATCH = "batch"
    ROW = "row"
    BLOCK = "block"


@dataclass
class MessageRow:
    mailing_id: int
    client_id: int
    due_at: datetime
    status: Status = Status.PENDING
    reason: Reason = Reason.NONE
    attempts: int = 0
    uncounted: int = 0
    maybe_sent: bool = False
    settled: int = 0
    """How often it reached a terminal status."""
    retried: int = 0
    """How often it was put back to PENDING on request."""
    place: Place = Place.BATCH
    created_at: datetime = EPOCH

    @property
    def bucket(self) -> int:
        return self.client_id % BUCKETS

    @property
    def id(self) -> int:
        return self.mailing_id << 32 | self.client_id


@dataclass
class EndpointRow:
    """`prober` may send one message until `probe_at`; then another replica may try."""

    breaker: BreakerState = BreakerState.CLOSED
    changed_at: datetime = EPOCH
    probe_at: datetime = EPOCH
    probes: int = 0
    prober: str | None = None
    suspension: Suspension = Suspension.NONE
    paused_at: datetime = EPOCH
    paused_until: datetime = EPOCH


class Stamped(str):
    """A text that remembers under which lease it was handed out, when, and whether it was to be sent."""

    batch_no: int
    fence: int
    sendable: bool
    claimed: float

    @classmethod
    def of(cls, text: str, batch_no: int, fence: int, sendable: bool, claimed: float) -> Stamped:
        stamped = cls(text)
        stamped.batch_no, stamped.fence, stamped.sendable, stamped.claimed = batch_no, fence, sendable, claimed
        return stamped
