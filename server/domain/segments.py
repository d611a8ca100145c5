"""Segments: filters with a name, which mailings and other filters refer to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from server.domain.clients import etag_of
from server.domain.filters import ClientFilter, check_filter, names_of_segments, valid_segment
from server.domain.masks import fields_of_parts, merged
from server.domain.validation import Violations

SEGMENT_FIELDS = ("name", "filter")
"""The fields of a segment that callers may set, in the order of the contract."""


@dataclass(frozen=True, slots=True)
class SegmentDefinition:
    """The fields of a segment that callers set."""

    name: str
    filter: ClientFilter


@dataclass(frozen=True, slots=True)
class Segment:
    """A stored segment. `size` clients matched at `size_at`, which is None when they were not counted."""

    id: int
    definition: SegmentDefinition
    size: int
    size_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def etag(self) -> str:
        """The fingerprint of this version."""
        return etag_of(self.id, self.version)


SegmentKey = int | str
"""Names a segment: by id, or by name without regard to case."""


def check_name(name: str, path: str, violations: Violations) -> None:
    """Report what is not the name of a segment."""
    if not valid_segment(name):
        violations.add(path, "is required: 1 to 100 letters, digits, '_', '-' or '.'")


def check_segment(
    segment: SegmentDefinition,
    zones: Collection[str],
    violations: Violations,
    fields: Collection[str] = SEGMENT_FIELDS,
) -> None:
    """Report every violation among `fields`, at paths below `segment`."""
    if "name" in fields:
        check_name(segment.name, "segment.name", violations)
    if "filter" not in fields:
        return
    if segment.filter.empty:
        violations.add("segment.filter", "is required: an empty one is every client, for whom no segment is needed")
    check_filter(segment.filter, zones, "segment.filter", violations)
    for path, _ in names_of_segments(segment.filter, "segment.filter"):
        violations.add(path, "must be empty: a segment may not name another one")
    if segment.filter.sample:
        violations.add("segment.filter.sample", "must be absent: a sample is taken where the segment is used")


def amended_segment(
    before: SegmentDefinition, patch: SegmentDefinition, fields: Collection[str], zones: Collection[str]
) -> SegmentDefinition:
    """Return `before` with `fields`, and parts of fields, taken from `patch`. Raise InvalidFields."""
    after = merged(before, patch, fields, "segment")
    violations = Violations()
    check_segment(after, zones, violations, fields_of_parts(fields))
    violations.check()
    return after
