"""Segments ↔ their messages."""

from __future__ import annotations

from mailing.v1 import segment_pb2
from server.api.encoding.filters import filter_message, filter_of
from server.api.encoding.wellknown import timestamp
from server.domain.segments import Segment, SegmentDefinition
from server.domain.validation import Violations


def definition_of(message: segment_pb2.Segment, violations: Violations) -> SegmentDefinition:
    """Return the caller's definition of a segment, unchecked; report what cannot be converted."""
    return SegmentDefinition(message.name, filter_of(message.filter, "segment.filter", violations))


def segment_message(segment: Segment) -> segment_pb2.Segment:
    """Return a stored segment as its message."""
    return segment_pb2.Segment(
        id=segment.id,
        name=segment.definition.name,
        filter=filter_message(segment.definition.filter),
        size=segment.size,
        size_time=timestamp(segment.size_at),
        etag=segment.etag,
        create_time=timestamp(segment.created_at),
        update_time=timestamp(segment.updated_at),
    )
