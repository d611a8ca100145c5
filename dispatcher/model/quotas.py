"""What replicas and the database say to each other about daily quotas."""

from __future__ import annotations

from typing import NamedTuple

MOST_PER_DAY = 10**12
"""The largest quota: more than any installation sends."""


class DayLimit(NamedTuple):
    """At most `most` messages (1 or more) on each day of a time zone, by its IANA name."""

    most: int
    timezone: str = "UTC"


def day_limit(most: int, timezone: str) -> DayLimit | None:
    """Return the limit of so many messages a day; None for 0. An empty zone is UTC."""
    return DayLimit(most, timezone or "UTC") if most > 0 else None


class QuotaRequest(NamedTuple):
    """A request for up to `wanted` permits of the present day, under `key`; for 0 it only asks for what is left."""

    key: str
    limit: DayLimit
    wanted: int


class QuotaGrant(NamedTuple):
    """Permits given to this replica: `granted` of them, for a `day` that ends in `ends_in` seconds.

    `left` are those that anybody may still get.
    """

    day: str
    granted: int
    left: int
    ends_in: float


class QuotaReturn(NamedTuple):
    """Permits that a replica does not need."""

    key: str
    day: str
    permits: int
