"""Mailings as the engine knows them: their definition, their audience, and how far they are expanded.

The records hold values and decide nothing; the words in them are those of `dispatcher.model.states`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.model.quotas import DayLimit
from dispatcher.model.states import MailingState, Semantics


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed attempts are repeated.

    `max_attempts` counts all requests, from 1; the back-offs are in seconds.
    """

    max_attempts: int = 5
    initial_backoff: float = 1.0
    max_backoff: float = 300.0


@dataclass(frozen=True, slots=True)
class AudienceFilter:
    """Which clients belong to a mailing. None in a field: any value.

    `further` has the conditions beside these fields, in the form in which storage keeps them; the engine
    passes it on.
    """

    tags: list[str] | None = None
    operator_codes: list[str] | None = None
    timezones: list[str] | None = None
    attributes: dict[str, str] | None = None
    client_ids: list[int] | None = None
    further: str = ""


@dataclass(frozen=True, slots=True)
class Mailing:
    """What the dispatcher needs to know of a mailing, as of `version`.

    `audience` is set where a client who no longer matches is not to get it any more.
    `max_rate` is in messages a second over all replicas, 0 without a limit; an `important`
    mailing is not held back by the frequency cap. The messages of a `timed` one leave by more than the
    windows of their clients. `day_full` says of one that is over that the last day had no room for more.
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
    title: str = ""
    timed: bool = False
    day_limit: DayLimit | None = None
    day_full: bool = False

    @property
    def is_limited(self) -> bool:
        """Whether it has a rate or a daily quota."""
        return self.max_rate > 0 or self.day_limit is not None


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
