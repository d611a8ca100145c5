"""Rates in messages a second: their bounds, the same wherever one comes in."""

from __future__ import annotations

LEAST_RATE, MOST_RATE = 0.0001, 1_000_000.0
"""Smaller and larger ones are refused: they mean none, and slots of them could not be computed."""

RATES = "0 (no limit) or a number of messages a second from 0.0001 to 1000000"
"""What a rate may be, for sentences."""


def is_rate(rate: float) -> bool:
    """Return whether this is a rate, or 0, which means no limit."""
    return rate == 0 or LEAST_RATE <= rate <= MOST_RATE


def bounded_rate(rate: float) -> float:
    """Return the rate that is nearest to a stored one; 0 for none."""
    return min(max(rate, LEAST_RATE), MOST_RATE) if rate > 0 else 0.0
