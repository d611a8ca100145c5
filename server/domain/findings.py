"""What an audit of the records finds: contradictions, and the places that are looked at one after the other.

A place is one mailing in one bucket, or what a bucket has beside its mailings: its change feed and its clients' keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class FindingKind(IntEnum):
    """What kind of contradiction a finding is; the numbers are those of the API."""

    UNSPECIFIED = 0
    NOT_IN_BATCH = 1
    IN_TWO_BATCHES = 2
    SETTLED_IN_BATCH = 3
    COUNTER = 4
    FEED = 5
    KEY = 6
    LEFT_OVER = 7


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction: what was checked, where, and what was found.

    `mailing_id` 0 is all of the bucket, `bucket` None all of the database, `client_id` 0 nobody in particular.
    `mendable` is what a repair mends.
    """

    check: str
    bucket: int | None
    mailing_id: int
    found: str
    mendable: bool = False
    kind: FindingKind = FindingKind.UNSPECIFIED
    client_id: int = 0


class Place(NamedTuple):
    """A mailing in a bucket; `mailing_id` 0 is what belongs to no mailing. Places are looked at in their order."""

    bucket: int
    mailing_id: int


BEGINNING = Place(0, -1)
"""Before the first place."""


class Checked(NamedTuple):
    """A place, what was found there, and the share of everything that was looked at by then, from 0 to 1."""

    place: Place
    findings: tuple[Finding, ...]
    share: float
