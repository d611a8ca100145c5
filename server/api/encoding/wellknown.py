"""What all requests share: protobuf's own types, enums, intervals and request ids ↔ Python's.

What cannot be converted is reported as a violation, not raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from enum import IntEnum
from functools import cache, partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp

from mailing.v1.time_of_day_pb2 import TimeOfDay
from server.domain.validation import Violations, request_id, update_mask
from server.storage.request_ids import CreatingCall

Number = TypeVar("Number", bound=IntEnum)

_BEHAVIOUR = field_behavior_pb2.field_behavior

_VALUES = frozenset({Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name, TimeOfDay.DESCRIPTOR.full_name})
"""Messages that are one value: no part of them is changed alone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = -62_104_060_800, 253_370_764_799
"""Seconds from the epoch to the beginning of year 2 and to the end of year 9998: the first and the
last year of Python's calendar mean infinity to the database driver."""

_LONGEST_SPAN = 315_576_000_000
"""Seconds: the range of google.protobuf.Duration."""


def populated(message: ProtoMessage) -> list[str]:
    """Return the names of the fields that are set."""
    return [descriptor.name for descriptor, _ in message.ListFields()]


@cache
def not_written(descriptor: Descriptor) -> frozenset[str]:
    """Return the fields of a resource that writes ignore, so that what was read can be written back.

    Those are the fields that the contract calls identifiers or output only, and the etag.
    """
    read_only = {field_behavior_pb2.IDENTIFIER, field_behavior_pb2.OUTPUT_ONLY}
    behaviours = {field.name: field.GetOptions().Extensions[_BEHAVIOUR] for field in descriptor.fields}
    return frozenset({"etag"}.union(name for name, found in behaviours.items() if read_only.intersection(found)))


def changed_fields(
    message: ProtoMessage, mask: FieldMask, fields: Sequence[str], violations: Violations
) -> frozenset[str]:
    """Return the fields that an update changes: those of its mask or, without one, those that are set.

    Report a path of the mask that is none of the updatable `fields`, no part of one, and none of `not_written`.
    """
    descriptor: Any = message.DESCRIPTOR
    is_part = partial(_leads, descriptor)
    return update_mask(mask.paths, fields, populated(message), not_written(descriptor), violations, is_part)


def _leads(descriptor: Descriptor, path: str) -> bool:
    """Return whether a path leads to a field, through messages of the contract, or to an entry of a map."""
    name, dot, rest = path.partition(".")
    field = descriptor.fields_by_name.get(name)
    if field is None or not dot:
        return field is not None
    inner = field.message_type
    if inner is None or not rest:
        return False
    if inner.GetOptions().map_entry:
        return True
    return not field.is_repeated and inner.full_name not in _VALUES and _leads(inner, rest)


def time_of(value: Timestamp, path: str, violations: Violations) -> datetime | None:
    """Return the moment, cut to microseconds; report one out of range."""
    if not (_EARLIEST <= value.seconds <= _LATEST and 0 <= value.nanos < 1_000_000_000):
        violations.add(path, "is not a time between the years 2 and 9998")
        return None
    return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def span_of(value: Duration, path: str, violations: Violations) -> timedelta | None:
    """Return the span; report one that is out of range or finer than microseconds."""
    seconds, nanos = value.seconds, value.nanos
    if abs(seconds) > _LONGEST_SPAN or abs(nanos) >= 1_000_000_000 or seconds * nanos < 0:
        violations.add(path, "is not a valid duration")
        return None
    if nanos % 1000:
        violations.add(path, "must not be finer than microseconds")
        return None
    return timedelta(seconds=seconds, microseconds=nanos // 1000)


def time_of_day(value: TimeOfDay, path: str, violations: Violations) -> time | None:
    """Return the time of day; report what is none."""
    try:
        return time(value.hours, value.minutes, value.seconds)
    except ValueError:
        violations.add(path, "is not a time of day from 00:00:00 to 23:59:59")
        return None


def time_message(value: time) -> TimeOfDay:
    """Return the time of day for a message."""
    return TimeOfDay(hours=value.hour, minutes=value.minute, seconds=value.second)


class IntervalRange(NamedTuple):
    """The range of a stream's `min_interval`, in seconds, and in words for the caller."""

    default: float
    shortest: float
    longest: float
    words: str

    def of(self, request: Any, violations: Violations) -> float:
        """Return the interval of a request, the default if it has none; report one out of range."""
        if not request.HasField("min_interval"):
            return self.default
        span = span_of(request.min_interval, "min_interval", violations)
        if span is None:
            return self.default
        interval = span.total_seconds()
        if not self.shortest <= interval <= self.longest:
            violations.add("min_interval", f"must be from {self.words}")
        return interval


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the moment for a message; None leaves the field unset."""
    if moment is None:
        return None
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86400 + since.seconds, nanos=since.microseconds * 1000)


def duration(span: timedelta | None) -> Duration | None:
    """Return the span, not negative, for a message; None leaves the field unset."""
    if span is None:
        return None
    return Duration(seconds=span.days * 86400 + span.seconds, nanos=span.microseconds * 1000)


def number_of(kind: type[Number], value: int, path: str, violations: Violations) -> Number | None:
    """Return the enum's member; report an unknown number."""
    try:
        return kind(value)
    except ValueError:
        violations.add(path, f"has no value {value}")
        return None


def numbers_of(kind: type[Number], values: Sequence[int], path: str, violations: Violations) -> tuple[Number, ...]:
    """Return the enum's members in order, each once; report unknown numbers."""
    found = {number_of(kind, value, f"{path}[{index}]", violations) for index, value in enumerate(values)}
    return tuple(sorted(number for number in found if number is not None))


def creating_call(method: str, id_text: str, body: ProtoMessage, violations: Violations) -> CreatingCall | None:
    """Return the identity of a creating call, None without a request id; report an id that is no UUID."""
    chosen = request_id(id_text, violations)
    if chosen is None:
        return None
    return CreatingCall(method, chosen, blake2b(body.SerializeToString(deterministic=True), digest_size=16).digest())
