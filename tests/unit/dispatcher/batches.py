"""Leases and settlements for the unit tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from dispatcher.leases import Lease, LeaseTerms
from dispatcher.model.batches import ClaimedBatch, Recipients
from dispatcher.model.mailings import Mailing, RetryPolicy
from dispatcher.model.outcomes import Settled, Settlement
from dispatcher.model.quotas import DayLimit
from dispatcher.model.states import MailingState, Reason, Semantics

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""The database's time of every claim."""

ASKED = 100.0
"""The monotonic time before every claim."""

MAILING = 7


def mailing(
    mailing_id: int = MAILING,
    ends_in: float | None = None,
    priority: int = 0,
    max_rate: float = 0.0,
    day_limit: DayLimit | None = None,
) -> Mailing:
    """Return a running mailing with a constant text."""
    ends_at = None if ends_in is None else NOW + timedelta(seconds=ends_in)
    state, semantics = MailingState.RUNNING, Semantics.AT_LEAST_ONCE
    known = (mailing_id, 1, state, "x", "default", semantics, priority, ends_at, RetryPolicy())
    return Mailing(*known, max_rate=max_rate, day_limit=day_limit)


def lease(
    recipients: int = 3,
    of: Mailing | None = None,
    sending: float = 45.0,
    now: Callable[[], float] = lambda: ASKED + 0.5,
    closes_in: float | None = None,
    no: int = 1,
    reclaimed: bool = False,
) -> Lease:
    """Return a lease of 60 seconds; the nth of its clients has the id 16 n and n attempts behind them."""
    of = of or mailing()
    people = Recipients.of(
        (16 * n, n, 0, reclaimed, "79", Reason.NONE, None, closes_in, False, "x") for n in range(1, recipients + 1)
    )
    batch = ClaimedBatch(0, of.id, no, 1, NOW, reclaimed, people)
    return Lease(batch, of, ASKED, LeaseTerms(60.0, sending), now)


def settlement(settled: Sequence[Settled], endpoint: str = "default") -> Settlement:
    """Return these outcomes as one settlement of a batch of MAILING."""
    return Settlement.of(ClaimedBatch(0, MAILING, 1, 1, NOW, False, Recipients()), endpoint, settled, True)
