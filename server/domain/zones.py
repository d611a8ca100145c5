"""The time zones that clients may have: IANA names that both Python and Postgres know."""

from __future__ import annotations

from collections.abc import Iterable
from zoneinfo import available_timezones

NOT_IANA = frozenset({"Factory", "localtime", "posixrules"})
"""Names found in zone databases that are no place's zone."""

ABBREVIATIONS = frozenset({"CET", "EET", "MET", "WET"})
"""Zones that Postgres takes for abbreviations without summer time: for half of the year a window
would be an hour off. The places that they stand for have zones of their own, such as
Europe/Brussels."""


def known_zones(database_zones: Iterable[str]) -> frozenset[str]:
    """Return the accepted names, given those of the database. Reads the zone database: once."""
    return frozenset(available_timezones() & set(database_zones)) - NOT_IANA - ABBREVIATIONS
