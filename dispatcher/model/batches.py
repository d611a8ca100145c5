"""Batches: the unit of work, open, and claimed with the messages in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

BATCH_SIZE = 500
"""The most messages of one batch."""


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


class Recipient(NamedTuple):
    """One message of a claimed batch.

    `attempts` were made before, of which `uncounted` do not count against the limit; `maybe_sent`
    says that nobody knows of one whether it arrived. `phone` is None when the client is gone;
    `skip_reason` is why they are not to get it, NONE when they are. `opens_at` is set when it is
    not to be sent at the claim by the database's clock: to when it may be; `closes_in` is how many
    seconds after the claim the client's window closes, None without a window. `overdue` says that the
    message is more than a day old: where its mailing has no end, every attempt counts from then on.
    """

    client_id: int
    attempts: int
    uncounted: int
    maybe_sent: bool
    phone: str | None
    skip_reason: int
    opens_at: datetime | None
    closes_in: float | None
    overdue: bool
    text: str


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch leased to this replica under `fence`, as of `claimed_at` by the database's clock.

    `reclaimed` says that an earlier lease of it ran out: all of its messages are `maybe_sent`.
    `change_no` is the number of the last change of clients in the bucket that the recipients show.
    """

    bucket: int
    mailing_id: int
    no: int
    fence: int
    claimed_at: datetime
    reclaimed: bool
    recipients: list[Recipient]
    change_no: int = 0
