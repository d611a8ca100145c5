"""Settlements for the tests of those who read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dispatcher.model.outcomes import Settled, Settlement
from dispatcher.model.records import ClaimedBatch

MAILING = 7


def settlement(settled: Sequence[Settled], endpoint: str = "default") -> Settlement:
    """Return these outcomes as one settlement of a batch of MAILING."""
    batch = ClaimedBatch(0, MAILING, 1, 1, datetime(2026, 3, 1, tzinfo=UTC), False, [])
    return Settlement(batch, endpoint, settled, True)
