"""Batches: the unit of work, open, and claimed with the messages in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap
from typing import Any, NamedTuple

BATCH_SIZE = 500
"""The most messages of one batch."""


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Unheld due batches of one mailing in one bucket.

    `over` says that the mailing was cancelled or has ended: they are settled, not sent. `day_full` then says that
    a daily quota kept it from sending more.
    """

    mailing_id: int
    bucket: int
    batches: int
    version: int
    priority: int
    endpoint: str
    over: bool
    day_full: bool = False


class Recipient(NamedTuple):
    """One message of a claimed batch.

    `attempts` were made before, of which `uncounted` do not count against the limit; `maybe_sent`
    says that nobody knows of one whether it arrived. `phone` is None when the client is gone;
    `skip_reason` is why they are not to get it (any more), NONE when they are. `opens_at` is set when it is
    not to be sent at the claim by the database's clock: to when it may be; `closes_in` is how many
    seconds after the claim the client's window closes, None without a window. `overdue` says that the
    message is more than a day old: where its mailing has no end, every attempt counts from then on.
    `values` are those that the endpoint's requests need beside the phone and the text.
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
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipients:
    """The messages of a claimed batch as columns: the fields of `Recipient`, by ascending client id.

    Each column is a tuple with one entry per message. A `Recipient` is made of them only for a
    message about which something is to be decided.
    """

    client_ids: Sequence[int] = ()
    attempts: Sequence[int] = ()
    uncounted: Sequence[int] = ()
    maybe_sent: Sequence[bool] = ()
    phones: Sequence[str | None] = ()
    skip_reasons: Sequence[int] = ()
    opens_at: Sequence[datetime | None] = ()
    closes_in: Sequence[float | None] = ()
    overdue: Sequence[bool] = ()
    texts: Sequence[str] = ()
    values: Sequence[tuple[str, ...]] = ()
    """Empty where the endpoint needs none."""

    @classmethod
    def of(cls, rows: Iterable[Sequence[object]]) -> Recipients:
        """Return the columns of rows with the fields of `Recipient`."""
        columns: list[Any] = list(zip(*rows, strict=True))
        return cls(*(columns if columns and any(columns[-1]) else columns[:-1]))

    @property
    def columns(self) -> tuple[Sequence[object], ...]:
        """All columns, in the order of the fields of `Recipient`; the last may be missing."""
        columns = (
            self.client_ids,
            self.attempts,
            self.uncounted,
            self.maybe_sent,
            self.phones,
            self.skip_reasons,
            self.opens_at,
            self.closes_in,
            self.overdue,
            self.texts,
        )
        return (*columns, self.values) if self.values else columns

    def __len__(self) -> int:
        return len(self.client_ids)

    def __getitem__(self, index: int) -> Recipient:
        return Recipient(*[column[index] for column in self.columns])  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Recipient]:
        return starmap(Recipient, zip(*self.columns, strict=True))


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
    recipients: Recipients
    change_no: int = 0
