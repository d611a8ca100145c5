"""The records that the parts of the dispatcher hand to one another.

They hold values and decide nothing; the words in them are those of `dispatcher.model.states`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from dispatcher.model.states import BreakerState, ErrorClass, MailingState, Reason, Semantics, Status, Suspension

BATCH_SIZE = 500
"""The most messages of one batch."""

DEFAULT_ENDPOINT = "default"
"""The name of the endpoint that a mailing without one uses."""


def endpoint_name(chosen: str) -> str:
    """Return the name of the endpoint that a mailing with this choice uses; '' chooses none."""
    return chosen or DEFAULT_ENDPOINT


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed attempts are repeated.

    `max_attempts` counts all requests, from 1; the back-offs are in seconds.
    """

    max_attempts: int = 5
    initial_backoff: float = 1.0
    max_backoff: float = 300.0


@dataclass(frozen=True, slots=True)
class Mailing:
    """What the dispatcher needs to know of a mailing, as of `version`.

    `audience` is set where a client who no longer matches is not to get it any more.
    `max_rate` is in messages a second over all replicas, 0 without a limit; an `important`
    mailing is not held back by the frequency cap.
    """

    id: int
    version: int
    state: MailingState
    text: str
    endpoint: str
    semantics: Semantics
    priority: int
    ends_at: datetime | None
    retry: RetryPolicy
    audience: AudienceFilter | None = None
    max_rate: float = 0.0
    important: bool = False


@dataclass(frozen=True, slots=True)
class SuccessRule:
    """Which answers of an endpoint say that it took the message.

    One of the `statuses`, each from 200 to 299, and, if `needs_body`, a body that is a JSON
    object whose `code_field` holds one of the `accepted` integers and strings, type for type:
    0 is neither "0" nor 0.0 nor false. Without `needs_body` the status alone decides. Raises
    ValueError, which begins with the attribute's name.
    """

    statuses: frozenset[int] = frozenset(range(200, 300))
    needs_body: bool = True
    code_field: str = "code"
    accepted: frozenset[int | str] = frozenset({0})

    def __post_init__(self) -> None:
        if not self.statuses or not self.statuses <= frozenset(range(200, 300)):
            raise ValueError("statuses must be some of 200 to 299")
        if not self.accepted or not all(type(value) in (int, str) for value in self.accepted):
            raise ValueError("accepted must be integers or strings, at least one")


DEFAULT_SUCCESS = SuccessRule()
"""What an endpoint without a rule of its own says: any 2xx with the integer `code` 0."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where messages are POSTed to.

    Sources: the environment or the endpoints file, never a request. Times are seconds.
    `url` ends where the message id is to be appended. `max_rate` is in messages a second over
    all replicas, 0 without a limit.
    """

    name: str
    url: str
    token: str
    total_timeout: float = 10.0
    connect_timeout: float = 3.0
    max_concurrency: int = 1024
    max_response_bytes: int = 65536
    ca_file: str | None = None
    max_rate: float = 0.0
    success: SuccessRule = DEFAULT_SUCCESS

    @property
    def shown_url(self) -> str:
        """The URL as it may be shown: without a user and password, and without the values of its query."""
        path, mark, query = self.url.partition("?")
        return re.sub(r"(?<=://)[^/]*@", "", path) + mark + "&".join(map(_masked, query.split("&")))

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, {self.shown_url!r})"


def _masked(parameter: str) -> str:
    """Return a parameter of a query without its value; what has no name may be all secret."""
    name, sign, value = parameter.partition("=")
    return f"{name}=***" if sign and value else name + sign if sign or not name else "***"


@dataclass(slots=True)
class Answer:
    """What one request came to, before anybody judges it.

    `status` is the HTTP status, 0 without one. `body` is complete or, with an error, what
    had arrived. `retry_after` is the header's raw value. `error` is NONE for any complete
    HTTP answer, else CONNECT to TOO_LARGE. `sent` says whether the endpoint may have seen
    the request. `duration` is in seconds.
    """

    status: int
    body: bytes
    retry_after: str | None
    error: ErrorClass
    sent: bool
    duration: float


class Recipient(NamedTuple):
    """One message of a claimed batch.

    `attempts` were made before, of which `uncounted` do not count against the limit. `phone` is
    None when the client is gone; `skip_reason` is why they are not to get it, NONE when they are.
    `opens_at` is set when it is not to be sent at the claim by the database's clock: to when it
    may be; `closes_in` is how many seconds after the claim the client's window closes, None
    without a window. `overdue` says that the message is more than a day old: where its mailing has no
    end, every attempt counts from then on.
    """

    client_id: int
    attempts: int
    uncounted: int
    phone: str | None
    skip_reason: int
    opens_at: datetime | None
    closes_in: float | None
    overdue: bool
    text: str


class Failure(NamedTuple):
    """What is recorded of a failed attempt."""

    at: datetime
    error_class: ErrorClass
    excerpt: str


class Outcome(NamedTuple):
    """What is to be recorded of one message.

    `attempted` counts the requests made, 0 or 1, `uncounted` those of them that do not count
    against the limit. `due_at` is set exactly when the message stays PENDING: it goes into a
    new batch that falls due then.
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


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """At most so many messages to one client within `period` seconds, over all mailings."""

    messages: int
    period: float


class EndpointState(NamedTuple):
    """What all replicas know of an endpoint; `probe_in` is when it may be tried next, in seconds.

    `pause_in` is for how many seconds nothing is to be sent because it asked for patience.
    """

    breaker: BreakerState
    probe_in: float
    suspension: Suspension = Suspension.NONE
    pause_in: float = 0.0


class SlotRequest(NamedTuple):
    """A request for up to `wanted` moments at which messages may leave, `rate` a second, under `key`."""

    key: str
    rate: float
    wanted: int


class Slots(NamedTuple):
    """Moments given to this replica: `granted` of them, the first at `since`, `step` seconds apart.

    `since` is the database's time in seconds since the epoch, also when there are none: then it is
    when the next one will be free.
    """

    since: float
    step: float
    granted: int


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """How the dispatcher looks for work and how much it takes on. Times are seconds.

    `poll_min` and `poll_max` bound the idle wait, `recheck_min` and `recheck_max` the wait
    between two looks for new clients of an open mailing. `lease` is how long a claimed batch
    belongs to its holder. `max_concurrency` bounds the requests in flight per endpoint.
    """

    poll_min: float = 0.01
    poll_max: float = 5.0
    recheck_min: float = 1.0
    recheck_max: float = 60.0
    lease: float = 60.0
    max_concurrency: int = 1024


@dataclass(frozen=True, slots=True)
class SettingOverrides:
    """What is set at run time for all replicas; None: as each one was started. Times are seconds.

    `version` grows with every change.
    """

    version: int = 0
    poll_min: float | None = None
    poll_max: float | None = None
    recheck_min: float | None = None
    recheck_max: float | None = None
    max_concurrency: int | None = None

    def of(self, settings: DispatchSettings) -> DispatchSettings:
        """Return the settings in force for a replica that was started with `settings`."""
        poll_min = settings.poll_min if self.poll_min is None else self.poll_min
        poll_max = settings.poll_max if self.poll_max is None else self.poll_max
        recheck_min = settings.recheck_min if self.recheck_min is None else self.recheck_min
        recheck_max = settings.recheck_max if self.recheck_max is None else self.recheck_max
        return replace(
            settings,
            poll_min=poll_min,
            # Replicas may have been started with other settings than the one that checked these.
            poll_max=max(poll_min, poll_max),
            recheck_min=recheck_min,
            recheck_max=max(recheck_min, recheck_max),
            max_concurrency=self.max_concurrency or settings.max_concurrency,
        )


@dataclass(frozen=True, slots=True)
class PollResult:
    """What a poll of the database found: kinds of work, and when the next thing falls due.

    `running` says that there are mailings under way, though perhaps with nothing to do now.
    `next_in` is in seconds, None when nothing is scheduled at all.
    """

    starts: bool
    expands: bool
    rechecks: bool
    ends: bool
    running: bool
    claims: bool
    next_in: float | None


@dataclass(frozen=True, slots=True)
class Expansion:
    """A mailing that still has clients to take in.

    `positions` holds, per bucket, the last client id read (or, for a recheck, the last change
    number). `open_batches` counts what is due and not settled yet.
    """

    mailing_id: int
    version: int
    filter: AudienceFilter
    semantics: Semantics
    max_rate: float
    positions: dict[int, int]
    open_batches: int
    over: bool


@dataclass(frozen=True, slots=True)
class AudienceFilter:
    """Which clients belong to a mailing. None in a field: any value."""

    tags: list[str] | None = None
    operator_codes: list[str] | None = None
    timezones: list[str] | None = None
    attributes: dict[str, str] | None = None
    client_ids: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of an expansion did.

    `seen` clients (or changes) were looked at, `inserted` messages made; `position` is where
    the next step begins; `finished` says that there is nothing behind it. `moved` is False
    when another replica was at it and nothing was done.
    """

    moved: bool
    seen: int
    inserted: int
    position: int
    finished: bool


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Unheld due batches of one mailing in one bucket.

    `over` says that the mailing was cancelled or has ended: they are settled, not sent.
    """

    mailing_id: int
    bucket: int
    batches: int
    version: int
    priority: int
    endpoint: str
    over: bool


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch leased to this replica under `fence`, as of `claimed_at` by the database's clock.

    `reclaimed` says that an earlier lease of it ran out: its messages may have been sent.
    """

    bucket: int
    mailing_id: int
    no: int
    fence: int
    claimed_at: datetime
    reclaimed: bool
    recipients: list[Recipient]
