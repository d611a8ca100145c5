"""The time zones that clients may have: IANA names that both Python and Postgres know."""

from __future__ import annotations

from collections.abc import Iterable
from zoneinfo import available_timezones

NOT_IANA = frozenset({"Factory", "localtime", "posixrules"})
"""Names found in zone databases that are no place's zone."""


def known_zones(database_zones: Iterable[str]) -> frozenset[str]:
    """Returns the accepted names, given those of the database. Reads the zone database: once."""
    return frozenset(available_timezones() & set(database_zones)) - NOT_IANA
